"""The plugin keeps the contract of its kind, in front of a stand-in for vLLM."""

import sys

import pytest

from linnix_core.testing import DeployerContract
from linnix_plugin_vllm import VllmDeployer


class TestVllm(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return VllmDeployer

    @pytest.fixture
    def options(self, vllm):
        return {"port": 0, "python": sys.executable, "environment": {"PYTHONPATH": str(vllm)}}

    @pytest.fixture
    def spec(self, spec):
        return spec()
