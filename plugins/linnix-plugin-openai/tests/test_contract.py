"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import ReasonerContract
from linnix_plugin_openai import OpenAIReasoner


class TestOpenAI(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return OpenAIReasoner

    @pytest.fixture
    def options(self, stand_in):
        return {"endpoint": stand_in.url, "model": "stand-in"}
