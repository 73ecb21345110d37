"""The plugin keeps the contract of its kind."""

import subprocess

import pytest

from linnix_core.testing import CollectorContract
from linnix_plugin_bcc import BccCollector


@pytest.mark.usefixtures("bcc")
class TestBcc(CollectorContract):
    @pytest.fixture
    def plugin_class(self):
        return BccCollector

    @pytest.fixture
    def options(self):
        return {"sample_interval": "500ms", "ring_size": "1MiB"}

    @pytest.fixture
    def provoke(self):
        return lambda: subprocess.run(["true"], check=True)
