"""Who is told of an incident, once: routing, messages, the outbox and delivery for any sink."""

from linnix_plugin_notify.__about__ import __version__
from linnix_plugin_notify.handler import NotifyConfig, NotifyHandler
from linnix_plugin_notify.message import (
    Change,
    Message,
    message_of,
    sections,
    test_message,
    with_feedback,
    with_insight,
)
from linnix_plugin_notify.routing import Route, Router
from linnix_plugin_notify.sinks import NotNow, Receipt, Refused, Sink

__all__ = [
    "Change",
    "Message",
    "NotNow",
    "NotifyConfig",
    "NotifyHandler",
    "Receipt",
    "Refused",
    "Route",
    "Router",
    "Sink",
    "__version__",
    "message_of",
    "sections",
    "test_message",
    "with_feedback",
    "with_insight",
]
