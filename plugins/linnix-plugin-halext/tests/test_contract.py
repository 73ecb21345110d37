"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import DeployerContract
from linnix_plugin_halext import HalextDeployer


class TestOnANode(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return HalextDeployer

    @pytest.fixture
    def spec(self, spec, node):
        return spec(node.url)


class TestThroughABackend(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return HalextDeployer

    @pytest.fixture
    def options(self, observed):
        return {"backend": observed.url, "username": "admin", "password": "hunter2 &="}

    @pytest.fixture
    def spec(self, spec, node, observed, add_node):
        add_node(observed)
        return spec(f"{observed.url}/api")
