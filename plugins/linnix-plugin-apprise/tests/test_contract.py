"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_apprise import AppriseHandler


class TestApprise(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return AppriseHandler

    @pytest.fixture
    def options(self):
        # Nobody listens there.
        return {"urls": ["json://127.0.0.1:9/"], "min_severity": "info"}
