"""The plugin keeps the contract of its kinds."""

import pytest

from linnix_core.testing import DeployerContract, ReasonerContract
from linnix_plugin_ollama import OllamaDeployer, OllamaReasoner


class TestReasoner(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return OllamaReasoner

    @pytest.fixture
    def options(self, ollama):
        return {"host": ollama.url, "model": "small"}


class TestDeployer(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return OllamaDeployer

    @pytest.fixture
    def options(self, ollama):
        return {"host": ollama.url}

    @pytest.fixture
    def spec(self, make_spec):
        return make_spec()
