"""Incidents as PagerDuty alerts: one of them, resolved at its end."""

from linnix_plugin_pagerduty.__about__ import __version__
from linnix_plugin_pagerduty.handler import PagerDutyConfig, PagerDutyHandler
from linnix_plugin_pagerduty.sink import PagerDutySink, event_of

__all__ = ["PagerDutyConfig", "PagerDutyHandler", "PagerDutySink", "__version__", "event_of"]
