"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_jsonl import JsonlHandler


class TestJsonl(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return JsonlHandler

    @pytest.fixture
    def options(self, tmp_path):
        return {"path": str(tmp_path / "out")}
