"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import ReasonerContract
from linnix_plugin_heuristics import HeuristicsReasoner


class TestHeuristics(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return HeuristicsReasoner
