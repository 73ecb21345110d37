"""The plugin keeps the contract of its kind, with a bot and with a webhook."""

import pytest

from linnix_core.testing import HandlerContract
from linnix_plugin_slack import SlackHandler


class TestSlackBot(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return SlackHandler

    @pytest.fixture
    def options(self):
        # Nobody listens there.
        return {
            "bot_token": "made-up",
            "channel": "C0123456789",
            "url": "http://127.0.0.1:9/",
            "min_severity": "info",
        }


class TestSlackWebhook(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return SlackHandler

    @pytest.fixture
    def options(self):
        return {"webhook_url": "http://127.0.0.1:9/services/T/B/x", "min_severity": "info"}
