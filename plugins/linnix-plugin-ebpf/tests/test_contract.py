"""The plugin keeps the contract of its kind."""

import subprocess

import pytest

from linnix_core.testing import CollectorContract
from linnix_plugin_ebpf import EbpfCollector


class TestEbpf(CollectorContract):
    @pytest.fixture
    def plugin_class(self):
        return EbpfCollector

    @pytest.fixture
    def options(self):
        return {"ring_size": "1MiB", "cgroup_rate": 10_000, "sample_interval": "100ms"}

    @pytest.fixture
    def provoke(self):
        return lambda: subprocess.run(["true"], check=True)

    @pytest.fixture
    def may_be_unavailable(self, ebpf_missing):
        return bool(ebpf_missing)
