"""The outbox and the thread that delivers: full disks, damaged files, restarts."""

import os
import stat
import threading
import time

import pytest

from linnix_core import Alert, Duration, Feedback, PluginUnavailable
from linnix_core.testing.secrets import QuotingRule, commands_with_secrets, leaked
from linnix_core.testing.waiting import eventually
from linnix_plugin_notify import NotNow, Refused, Route, delivery, sections
from linnix_plugin_notify.outbox import NotSaved, Outbox
from linnix_plugin_notify.testing import HOSTILE, example_messages, explanation, incident, story


def outbox_of(handler):
    return handler.context.data_dir / "outbox.db"


def test_beginning_changes_and_end_are_told(start, sink):
    handler = start()
    opened, worse, closed = story()
    for number, notice in enumerate(
        (opened, explanation(), worse, Feedback("9f2c-i1", "noise", by="bob"), closed), 1
    ):
        {
            "incident": handler.linnix_incident,
            "insight": handler.linnix_insight,
            "feedback": handler.linnix_feedback,
        }[notice.type](notice)
        assert sink.wait_for(number)
    assert sink.changes == ["opened", "explained", "worse", "explained", "resolved"]
    assert "noise, says bob" in str(sections(sink.delivered[-1][0]))


def test_the_outbox_is_private_and_another_agent_keeps_out(start):
    handler = start()
    assert stat.S_IMODE(outbox_of(handler).stat().st_mode) == 0o600
    with pytest.raises(PluginUnavailable, match="another agent uses the outbox"):
        start()


def test_the_next_run_tells_what_this_one_could_not(start, sink):
    sink.failures.extend(NotNow("down", sure=True) for _ in range(100))
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert "down" in handler.linnix_health().reason
    assert "1 incidents wait" in handler.linnix_health().reason
    handler.linnix_stop(time.monotonic() + 5)
    sink.failures.clear()
    start()
    assert sink.wait_for(1)
    assert sink.changes == ["opened"]


def test_a_stop_delivers_what_is_due_and_then_nothing(start, sink):
    handler = start()
    for notice in story():
        handler.linnix_incident(notice)
    handler.linnix_stop(time.monotonic() + 30)
    assert sink.changes[0] == "opened"
    assert sink.changes[-1] == "resolved"
    handler.linnix_incident(incident(id="late", fingerprint="late"))
    assert len(sink.delivered) <= 3


def test_a_sink_that_raises_anything_is_tried_again(start, sink, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    sink.failures.append(ZeroDivisionError())
    handler = start()
    handler.linnix_incident(story()[0])
    assert sink.wait_for(1)
    _, _, again = sink.delivered[0]
    assert again


def test_pauses_double_and_have_an_end(start, sink, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(delivery, "LAST_PAUSE_S", 0.004)
    sink.failures.extend(NotNow("down", sure=True) for _ in range(20))
    handler = start()
    handler.linnix_incident(story()[0])
    assert sink.wait_for(1)
    assert handler._delivery.counts["failures"] == 20


def test_what_is_refused_is_counted_and_the_end_is_told(start, sink):
    sink.failures.append(Refused("no"))
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(lambda: handler._delivery.counts["refused"])
    handler.linnix_incident(story()[2])
    assert sink.wait_for(1)
    assert sink.changes == ["resolved"]


def test_one_target_that_fails_does_not_hold_back_another(start, sink):
    routes = (Route(name="a", to="A", classes=("fork_storm",)), Route(name="b", to="B"))
    sink.failures.append(NotNow("not A", retry_after_s=3000, sure=True))
    handler = start(routes=routes)
    handler.linnix_incident(story()[0])
    eventually(lambda: not sink.failures)
    handler.linnix_incident(incident(id="2", fingerprint="2", class_="oom_risk"))
    assert sink.wait_for(1)
    assert sink.delivered[0][1] == "B"


def test_a_full_disk_keeps_nobody_from_being_told(start, sink, monkeypatch):
    handler = start()
    save = Outbox.save

    def full(self, pages):
        raise NotSaved("cannot write: disk is full")

    monkeypatch.setattr(Outbox, "save", full)
    handler.linnix_incident(story()[0])
    assert sink.wait_for(1)
    eventually(handler.linnix_health, lambda health: "disk is full" in health.reason)
    monkeypatch.setattr(Outbox, "save", save)
    handler.linnix_flush()
    assert handler.linnix_health().status == "ok"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_disk_that_is_really_full_raises_not_saved(start):
    handler = start()
    connection = handler._delivery._outbox._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    for number in range(20):
        handler.linnix_incident(incident(id=f"{number}", fingerprint=f"{number}"))
    eventually(handler.linnix_health, lambda health: "full" in health.reason)
    connection.execute("PRAGMA max_page_count=100000")
    handler.linnix_flush()
    assert handler.linnix_health().status == "ok"


def test_a_damaged_outbox_is_moved_away(start, sink):
    handler = start()
    path = outbox_of(handler)
    handler.linnix_stop(time.monotonic() + 5)
    path.write_bytes(b"SQLite format 3\0" + os.urandom(4096))
    start().linnix_incident(story()[0])
    assert sink.wait_for(1)
    assert path.with_name("outbox.db.damaged").exists()


def test_a_page_that_cannot_be_read_does_not_hide_the_others(start, sink):
    sink.failures.extend(NotNow("down", sure=True) for _ in range(100))
    handler = start()
    handler.linnix_incident(story()[0])
    handler.linnix_flush()
    handler._delivery._outbox._connection.execute("INSERT INTO pages VALUES ('x', '{}')")
    handler.linnix_stop(time.monotonic() + 5)
    sink.failures.clear()
    start()
    assert sink.wait_for(1)


def test_an_outbox_of_a_newer_version_is_left_alone(start):
    handler = start()
    handler._delivery._outbox._connection.execute("PRAGMA user_version=99")
    handler.linnix_stop(time.monotonic() + 5)
    with pytest.raises(PluginUnavailable, match="newer version"):
        start()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_pages": 3}, "^max_pages must be at least 16"),
        ({"timeout": Duration(0.0)}, "^timeout must be more than nothing"),
        ({"give_up_after": Duration(0.0)}, "^give_up_after must be"),
        ({"routes": (Route(name="a"), Route(name="a"))}, "^routes has two routes called 'a'"),
    ],
)
def test_mistakes_are_told(start, options, said):
    with pytest.raises(ValueError, match=said):
        start(**options)


def test_without_routes_severity_and_number_are_those_of_the_component(start, sink):
    handler = start(min_severity="high", per_hour=1)
    handler.linnix_incident(incident(id="1", fingerprint="1", severity="medium"))
    handler.linnix_incident(incident(id="2", fingerprint="2"))
    handler.linnix_incident(incident(id="3", fingerprint="3"))
    assert sink.wait_for(1)
    eventually(lambda: handler._delivery.waiting() == (1, 1))
    assert handler.linnix_health().limits == ("1 incidents wait for the limit of their route",)


def test_metrics_tell_what_became_of_every_message(start, sink):
    handler = start()
    handler.linnix_incident(story()[0])
    handler.linnix_incident(story()[2])
    eventually(lambda: "resolved" in sink.changes)
    eventually(lambda: handler._delivery.counts["delivered_resolved"])
    told = {
        metric.labels["change"]: metric.value
        for metric in handler.linnix_metrics()
        if metric.name == "notify_delivered_messages"
    }
    assert (told["opened"], told["resolved"]) == (1, 1)


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_every_text_of_a_message_is_one_printable_line(name):
    for message in example_messages(name).values():
        for text in (message.title, message.host, *(t for _, ts in sections(message) for t in ts)):
            assert text.isprintable()
            assert len(text) <= 400


def test_no_secret_of_a_command_line_gets_into_a_message(linnix_runtime, sink, noting):
    records = commands_with_secrets(seed=8)
    told_all = {"handlers.noting": {"routes": [{"name": "all", "per_hour": 1000}]}}
    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "noting": noting}, records=records, options=told_all
    )
    assert agent.wait_idle(60)
    assert sink.wait_for(len(records))
    said = "\n".join(
        text for message, _, _ in sink.delivered for _, lines in sections(message) for text in lines
    )
    assert leaked(said, seed=8) == []
    assert said.count("quoted: ") >= len(records)


def test_capture_goes_on_while_a_service_hangs(linnix_runtime, sink, noting, linnix_records):
    hanging, release = threading.Event(), threading.Event()

    def hang(message, to, receipt, *, again):
        hanging.set()
        release.wait()
        return {}

    sink.deliver = hang
    try:
        agent = linnix_runtime(
            handlers={"noting": noting},
            records=[*linnix_records(500)],
        )
        agent.submit(Alert("r", "high", "m", "fork_storm", ts_ns=time.time_ns()))
        assert hanging.wait(60)
        assert agent.wait_idle(60)
    finally:
        release.set()
