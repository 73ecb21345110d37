"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import ReasonerContract
from linnix_plugin_llama_cpp import LlamaCppReasoner

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, which is built for ten minutes")


class TestReasoner(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return LlamaCppReasoner

    @pytest.fixture
    def options(self, tiny):
        return {"model": str(tiny), "threads": 1}
