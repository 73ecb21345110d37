"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_console import ConsoleHandler


class TestConsole(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return ConsoleHandler

    @pytest.fixture
    def options(self, tmp_path):
        return {"mode": "plain"}
