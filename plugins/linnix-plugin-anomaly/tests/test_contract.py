"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core import SystemSample
from linnix_core.testing import HandlerContract
from linnix_plugin_anomaly import AnomalyHandler

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS


class TestAnomaly(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return AnomalyHandler

    @pytest.fixture
    def options(self):
        return {"resolution": "1s", "warmup": "30s", "threshold": 2.0, "max_series": 100}

    @pytest.fixture
    def provoking_records(self):
        percents = [*(10.0 + i % 3 for i in range(200)), 99.0, 10.0, 10.0]
        return [
            SystemSample(SECOND_NS, cpu_percent=percent, ts_ns=BEGAN_NS + i * SECOND_NS)
            for i, percent in enumerate(percents)
        ]
