"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_http import HttpHandler


class TestHttp(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return HttpHandler

    @pytest.fixture
    def options(self, tmp_path):
        return {"listen": "127.0.0.1:0", "unix_socket": str(tmp_path / "http.sock")}
