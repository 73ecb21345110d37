"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core import encode
from linnix_core.testing import CollectorContract
from linnix_plugin_replay import ReplayCollector


class TestReplay(CollectorContract):
    @pytest.fixture
    def plugin_class(self):
        return ReplayCollector

    @pytest.fixture
    def options(self, tmp_path, linnix_records):
        file = tmp_path / "recorded.jsonl"
        file.write_bytes(b"".join(encode(record) + b"\n" for record in linnix_records(500)))
        return {"path": str(file)}

    @pytest.fixture
    def provoke(self):
        return lambda: None  # everything has happened
