"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import CollectorContract
from linnix_plugin_psi import PsiCollector


class TestPsi(CollectorContract):
    @pytest.fixture
    def plugin_class(self):
        return PsiCollector

    @pytest.fixture
    def options(self):
        return {"include": ["/", "/*"], "exclude": ["/nothing"], "max_groups": 100}

    @pytest.fixture
    def provoke(self):
        return lambda: None
