"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_pagerduty import PagerDutyHandler


class TestPagerDuty(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return PagerDutyHandler

    @pytest.fixture
    def options(self):
        # Nobody listens there.
        return {"routing_key": "R0123", "url": "http://127.0.0.1:9", "min_severity": "info"}
