"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_prometheus import PrometheusHandler


class TestPrometheus(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return PrometheusHandler

    @pytest.fixture
    def options(self):
        return {"metrics_listen": "127.0.0.1:0"}
