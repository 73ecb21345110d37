"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_sqlite import SqliteHandler


class TestSqlite(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return SqliteHandler

    @pytest.fixture
    def options(self, tmp_path):
        return {"path": str(tmp_path / "history.db")}
