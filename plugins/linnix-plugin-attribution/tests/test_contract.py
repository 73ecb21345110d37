"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core import CgroupSample, Pressure, SystemSample
from linnix_core.testing import HandlerContract
from linnix_plugin_attribution import AttributionHandler

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS


def sample(path, seconds, *, stall_us=0, cpu_percent=0.0):
    return CgroupSample(
        path,
        SECOND_NS,
        cpu_percent=cpu_percent,
        psi_cpu=Pressure(0.0, stall_us),
        ts_ns=BEGAN_NS + seconds * SECOND_NS,
    )


class TestAttribution(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return AttributionHandler

    @pytest.fixture
    def options(self):
        return {"alerts": True, "sustained": "1s", "threshold": "50ms", "max_pairs": 100}

    @pytest.fixture
    def provoking_records(self):
        return [
            sample("/victim", 0),
            sample("/hog", 0),
            sample("/victim", 1, stall_us=500_000, cpu_percent=50.0),
            sample("/hog", 1, cpu_percent=100.0),
            SystemSample(SECOND_NS, ts_ns=BEGAN_NS + 2 * SECOND_NS),
        ]
