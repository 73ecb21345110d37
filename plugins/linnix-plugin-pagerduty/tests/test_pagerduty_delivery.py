"""One alert per incident, whatever the service does, and through a kill between any two steps."""

import json
import time

import httpx
import pytest

from linnix_core import PluginUnavailable, Secret
from linnix_core.testing.secrets import QuotingRule, commands_with_secrets, leaked
from linnix_core.testing.waiting import eventually
from linnix_plugin_notify import Route, delivery
from linnix_plugin_notify.testing import kill_everywhere, story
from linnix_plugin_pagerduty import PagerDutyConfig, PagerDutyHandler
from linnix_plugin_pagerduty.sink import retry_after_s


@pytest.fixture
def soon(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "LAST_PAUSE_S", 0.05)


def test_an_incident_is_one_alert_that_is_resolved(start, pagerduty):
    handler = start()
    for number, told in enumerate(story(), 1):
        handler.linnix_incident(told)
        assert pagerduty.wait_for(number)
    assert [actions for _, actions in pagerduty.alerts] == [["trigger", "trigger", "resolve"]]
    assert [event["routing_key"] for event in pagerduty.events] == ["R0123456789"] * 3


def test_it_is_resolved_only_after_it_was_over_for_a_while(start, pagerduty):
    handler = start(resolve_after=3600.0)
    opened, _, closed = story()
    handler.linnix_incident(opened)
    assert pagerduty.wait_for(1)
    handler.linnix_incident(closed)
    handler.linnix_incident(story()[1])
    # It got worse in the meantime: the same alert, and nobody is paged twice.
    assert pagerduty.wait_for(2)
    assert pagerduty.alerts == [(pagerduty.events[0]["dedup_key"], ["trigger", "trigger"])]


@pytest.mark.parametrize(
    "failure",
    [(429, {"Retry-After": "0"}), 429, 500, 503, "reset", "taken-reset", "taken-cut", "hang"],
    ids=str,
)
def test_a_service_that_fails_is_told_again_until_it_takes_it_once(start, pagerduty, soon, failure):
    pagerduty.next(failure, failure)
    handler = start(timeout=0.5)
    opened, _, closed = story()
    handler.linnix_incident(opened)
    assert pagerduty.wait_for(1)
    eventually(lambda: pagerduty.alerts and handler.linnix_health().status == "ok")
    handler.linnix_incident(closed)
    eventually(lambda: "resolve" in pagerduty.alerts[0][1])
    assert len(pagerduty.alerts) == 1
    assert pagerduty.alerts[0][1][-1] == "resolve"


def test_a_slow_reader_gets_it(start, pagerduty):
    pagerduty.next("slow")
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(lambda: pagerduty.alerts)


def test_it_waits_as_long_as_it_is_asked_to(start, pagerduty):
    pagerduty.next((429, {"Retry-After": "3600"}))
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    trouble = handler._delivery._trouble[""]
    assert trouble.until_ns - time.time_ns() > 3500 * 10**9
    assert "PagerDuty answered 429" in handler.linnix_health().reason
    assert len(pagerduty.requests) == 1


def test_an_event_that_is_refused_is_not_tried_again(start, pagerduty):
    pagerduty.next(400)
    handler = start()
    handler.linnix_incident(story()[0])
    assert pagerduty.wait_for(1)
    handler.linnix_incident(story()[2])
    assert pagerduty.wait_for(2)
    counted = {metric.name: metric.value for metric in handler.linnix_metrics()}
    assert counted["notify_refused_messages"] == 1


def test_a_service_that_hangs_holds_back_neither_capture_nor_the_stop(start, pagerduty):
    pagerduty.next("hang")
    handler = start(timeout=3600.0)
    for told in story():
        handler.linnix_incident(told)  # returns while the service hangs
    eventually(lambda: handler._delivery._busy_since is not None)
    handler.linnix_stop(time.monotonic() + 0.5)
    assert not pagerduty.requests


def test_the_account_of_a_route_is_used(start, pagerduty):
    handler = start(
        routing_keys={"databases": Secret("RDB")},
        routes=(
            Route(name="db", to="databases", cgroups=("/system.slice/cron*",)),
            Route(name="all"),
        ),
    )
    handler.linnix_incident(story()[0])
    assert pagerduty.wait_for(1)
    assert pagerduty.events[0]["routing_key"] == "RDB"


@pytest.mark.parametrize(
    ("options", "hint"),
    [({}, "set routing_key"), ({"routes": (Route(name="x", to="y"),)}, "set routing_keys.y")],
)
def test_a_route_without_a_key_is_unavailable(linnix_context, options, hint):
    handler = PagerDutyHandler(PagerDutyConfig(**options), linnix_context())
    with pytest.raises(PluginUnavailable) as raised:
        handler.linnix_start()
    assert raised.value.hint.startswith(hint)


def test_the_key_travels_encrypted_only():
    with pytest.raises(ValueError, match=r"^url must begin with https://"):
        PagerDutyConfig(url="http://events.example")


@pytest.mark.parametrize("continues", [False, True], ids=["never-seen-again", "goes-on"])
def test_killed_between_any_two_steps_there_is_one_page_and_one_end(pagerduty, tmp_path, continues):
    options = {"routing_key": "R0", "url": pagerduty.url, "resolve_after": 0, "update_every": 0}
    seen = []
    for _, names in kill_everywhere(
        "linnix_plugin_pagerduty:PagerDutyHandler", options, tmp_path, continues=continues
    ):
        alerts, pagerduty.alerts = pagerduty.alerts, []
        saved = "save-ended" in names
        # Its end may be on disk by then: what comes after that is another one.
        ended = continues and names.count("deliver-ended") >= 2
        if saved or continues:
            assert 1 <= len(alerts) <= 1 + ended, (names, alerts)
        for _, actions in alerts:
            assert actions[0] == "trigger", names
            assert actions.count("resolve") == 1, names
            assert actions[-1] == "resolve", names
        seen.append(names)
    assert len(seen) > 12


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("120") == 120.0
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_what_httpx_calls_a_request_is_one(start, pagerduty):
    handler = start()
    handler.linnix_incident(story()[0])
    assert pagerduty.wait_for(1)
    sent = pagerduty.requests[0]
    assert sent.headers["content-type"] == "application/json"
    assert json.loads(sent.body)["event_action"] == "trigger"
    assert httpx.codes.ACCEPTED == 202


def test_no_secret_of_a_command_line_reaches_pagerduty(linnix_runtime, pagerduty, monkeypatch):
    monkeypatch.setenv("LINNIX_TEST_ROUTING_KEY", "R0123456789")
    records = commands_with_secrets(seed=10)
    options = {
        "routing_key": {"env": "LINNIX_TEST_ROUTING_KEY"},
        "url": pagerduty.url,
        "routes": [{"name": "all", "per_hour": 1000}],
    }
    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "pagerduty": PagerDutyHandler},
        records=records,
        options={"handlers.pagerduty": options},
    )
    assert agent.wait_idle(60)
    assert pagerduty.wait_for(len(records))
    sent = "\n".join(request.body.decode() for request in pagerduty.requests)
    assert leaked(sent, seed=10) == []
    assert sent.count("quoted: ") >= len(records)
