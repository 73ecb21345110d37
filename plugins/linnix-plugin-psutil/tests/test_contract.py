"""The plugin keeps the contract of its kind."""

import subprocess

import pytest

from linnix_core.testing import CollectorContract
from linnix_plugin_psutil import PsutilCollector


class TestPsutil(CollectorContract):
    @pytest.fixture
    def plugin_class(self):
        return PsutilCollector

    @pytest.fixture
    def options(self):
        return {"io": True, "fds": True, "system": True}

    @pytest.fixture
    def provoke(self):
        return lambda: subprocess.run(["true"], check=True)
