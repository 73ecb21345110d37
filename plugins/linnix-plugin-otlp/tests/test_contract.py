"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_otlp import OtlpHandler


class TestOtlp(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return OtlpHandler

    @pytest.fixture
    def options(self, collector):
        return {"endpoint": collector.endpoint, "delay": 0.01}
