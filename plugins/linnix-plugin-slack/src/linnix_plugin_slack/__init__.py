"""Incidents in Slack: one message each, updated in place, with buttons for feedback."""

from linnix_plugin_slack.__about__ import __version__
from linnix_plugin_slack.blocks import escaped, fallback_of, rendered
from linnix_plugin_slack.handler import SlackConfig, SlackHandler

__all__ = ["SlackConfig", "SlackHandler", "__version__", "escaped", "fallback_of", "rendered"]
