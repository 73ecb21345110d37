"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_enterprise import EnterpriseHandler


class TestEnterprise(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return EnterpriseHandler
