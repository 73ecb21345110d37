"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import ReasonerContract
from linnix_plugin_ollama import OllamaReasoner


class TestOllama(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return OllamaReasoner

    @pytest.fixture
    def options(self, ollama):
        return {"host": ollama.url, "model": "small"}
