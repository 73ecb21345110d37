"""PagerDuty's Events API v2 on this machine."""

import json

import pytest

from linnix_plugin_notify.testing import LocalService
from linnix_plugin_pagerduty import PagerDutyConfig, PagerDutyHandler


class PagerDuty(LocalService):
    """Takes events as ``reference/events-v2/openapiv3.json`` of PagerDuty's API schema says.

    202 with ``status``, ``message`` and ``dedup_key``; 400 with ``errors`` for what is no
    event. Events of one ``dedup_key`` are one alert; a trigger for one that is open is added to
    its log, one for a resolved alert opens another.
    """

    def __init__(self):
        super().__init__()
        self.events = []
        #: Every alert there ever was, as its key and the actions on it.
        self.alerts = []

    def accept(self, request):
        event = json.loads(request.body)
        wrong = [name for name in ("routing_key", "event_action") if not event.get(name)]
        if event.get("event_action") == "trigger":
            payload = event.get("payload", {})
            wrong += [name for name in ("summary", "severity", "source") if not payload.get(name)]
            if payload.get("severity") not in ("critical", "error", "warning", "info"):
                wrong.append("severity")
        if request.path != "/v2/enqueue" or wrong or len(event.get("dedup_key", "")) > 255:
            body = {"status": "invalid event", "message": "Event object is invalid",
                    "errors": wrong}  # fmt: skip
            return 400, {}, json.dumps(body).encode()
        self.events.append(event)
        self._apply(event)
        body = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return 202, {"content-type": "application/json"}, json.dumps(body).encode()

    def _apply(self, event):
        action = event["event_action"]
        current = next(
            (each for each in reversed(self.alerts) if each[0] == event["dedup_key"]), None
        )
        is_open = current is not None and "resolve" not in current[1]
        if action == "trigger" and not is_open:
            self.alerts.append((event["dedup_key"], ["trigger"]))
        elif is_open:
            current[1].append(action)


@pytest.fixture
def pagerduty():
    with PagerDuty() as service:
        yield service


@pytest.fixture
def start(linnix_context, pagerduty):
    """A started handler; stopped at the end."""
    import time

    started = []

    def make(**options):
        from linnix_core import Secret

        options.setdefault("routing_key", Secret("R0123456789"))
        options.setdefault("resolve_after", 0.0)
        handler = PagerDutyHandler(
            PagerDutyConfig(url=pagerduty.url, **options), linnix_context("handlers.pagerduty")
        )
        started.append(handler)
        handler.linnix_start()
        handler.linnix_ready()
        return handler

    yield make
    pagerduty.release.set()
    for handler in started:
        handler.linnix_stop(time.monotonic() + 10)
