"""The slow path: one thread makes incidents of alerts, another has them explained.

Section 4 of the architecture, on alerts: one queue of the core, one incident thread, and
reasoning starts when an incident opens or gets worse. Times are those of the alerts.
"""

from __future__ import annotations

import threading
import time

import attrs
import pytest

from linnix_core import Alert, Incident, Insight, Subject
from linnix_core import incidents as incidents_module
from linnix_core import notices as notices_module
from linnix_core.incidents import QUIET_NS, IncidentBook
from linnix_core.notices import AlertThread, ReasonThread
from linnix_core.testing.waiting import eventually

HANG_S = 60.0
SECOND = 10**9


def alert(rule="forks", severity="medium", at=0.0, **parts):
    parts.setdefault("class_", "fork_storm")
    parts.setdefault("subject", Subject(exe="/usr/bin/make", cgroup="/build"))
    return Alert(rule, severity, f"{rule} at {at}", ts_ns=round((1000 + at) * SECOND), **parts)


@pytest.fixture
def book():
    numbers = iter(range(1, 100_000))
    return IncidentBook(new_id=lambda: f"i{next(numbers)}")


def ignore(notice):
    pass


# --- the thread of alerts -------------------------------------------------------------


class Desk:
    """An `AlertThread` and what came out of it."""

    def __init__(self, book, journal, clock):
        self.asked = []
        self.published = []
        self.broken = False
        self.journal = journal
        self.thread = AlertThread(
            book, publish=self._publish, explain=self.asked.append, clock=clock
        )

    def _publish(self, notice):
        if self.broken:
            self.broken = False
            raise OSError("cannot publish")
        self.published.append(notice)
        self.journal.note((notice.type, getattr(notice, "change", "")))

    def submit(self, *alerts):
        for item in alerts:
            assert self.thread.submit(item)
        assert self.thread.wait_idle(time.monotonic() + HANG_S)


@pytest.fixture
def desk(book, journal, clock):
    desk = Desk(book, journal, clock)
    desk.thread.start()
    yield desk
    desk.thread.stop(time.monotonic() + HANG_S)
    assert not desk.thread._thread.is_alive()


def test_an_alert_is_published_before_the_incident_that_it_opens(desk, journal):
    desk.submit(alert(), alert(at=1), alert(at=2, severity="critical"))
    assert journal.entries == [
        ("alert", ""),
        ("incident", "opened"),
        ("alert", ""),
        ("alert", ""),
        ("incident", "worse"),
    ]


def test_an_explanation_is_asked_for_when_an_incident_opens_or_gets_worse(desk):
    desk.submit(
        alert(),
        alert(at=1),
        alert(at=2, severity="critical"),
        alert(at=20, severity="low"),  # an update
        alert("fd_count", at=21, class_=None),  # no class, so nothing to explain
        alert(at=500, class_="cpu_spin"),  # closes the others, and opens one
    )
    assert [(i.class_, i.change) for i in desk.asked] == [
        ("fork_storm", "opened"),
        ("fork_storm", "worse"),
        ("cpu_spin", "opened"),
    ]
    changes = [n.change for n in desk.published if isinstance(n, Incident)]
    assert sorted(changes) == ["closed", "closed", "opened", "opened", "opened", "updated", "worse"]


def test_the_sender_keeps_its_own_alert(desk):
    given = alert(labels={"a": "b"})
    given.message = "token=hunter2hunter2"
    desk.submit(given, given)
    first, _, second = desk.published
    assert first is not given
    assert second is not first
    assert given.message == "token=hunter2hunter2"
    assert first.message == second.message == "token=[redacted]"


def test_one_alert_that_cannot_be_taken_does_not_end_the_others(desk, caplog):
    desk.broken = True
    desk.submit(alert("lost"), alert("found"))
    assert [n.rule for n in desk.published if isinstance(n, Alert)] == ["found"]
    assert "an alert was lost: OSError: cannot publish" in caplog.text


@pytest.mark.parametrize("years_ago", [0, 3], ids=["live", "replayed"])
def test_an_incident_is_closed_when_no_alert_has_come_for_long_enough(
    book, journal, monkeypatch, years_ago
):
    monkeypatch.setattr(incidents_module, "QUIET_NS", SECOND // 5)
    desk = Desk(book, journal, time)
    desk.thread.start()
    began = time.time_ns() - years_ago * 31_556_952 * SECOND
    desk.submit(attrs.evolve(alert(), ts_ns=began))
    assert journal.wait_for(("incident", "closed"))
    closed = desk.published[-1]
    assert closed.closed_ns - began >= SECOND // 5
    desk.thread.stop(time.monotonic() + HANG_S)


def test_a_replay_tells_the_same_story_however_old_it_is(desk, journal, clock):
    clock.now = 1e9  # long after the alerts
    desk.submit(alert())
    clock.advance(QUIET_NS / 1e9 - 1)  # not yet quiet for long enough
    assert book_after_a_look(desk) == [("i1", 1)]
    desk.submit(alert(at=299))
    assert book_after_a_look(desk) == [("i1", 2)]
    desk.submit(alert(at=1499))  # but here: by the time of the alerts
    assert book_after_a_look(desk) == [("i2", 1)]


def book_after_a_look(desk):
    """What is open, once the thread has closed what it takes to be over."""
    for notice in desk.thread._book.close_quiet(desk.thread._now_ns()):
        desk._publish(notice)
    return [(i.id, i.alerts) for i in desk.thread._book.view.open()]


def test_alerts_that_nobody_takes_are_refused_without_waiting(book, clock, monkeypatch):
    monkeypatch.setattr(notices_module, "MAX_WAITING_ALERTS", 2)
    held, go_on = threading.Event(), threading.Event()

    def publish(notice):
        held.set()
        go_on.wait(HANG_S)

    thread = AlertThread(book, publish=publish, explain=lambda incident: None, clock=clock)
    thread.start()
    assert thread.submit(alert())
    assert held.wait(HANG_S)
    assert [thread.submit(alert(at=n)) for n in range(4)] == [True, True, False, False]
    go_on.set()
    assert thread.wait_idle(time.monotonic() + HANG_S)
    thread.stop(time.monotonic() + HANG_S)
    assert book.view.open()[0].alerts == 3


def test_stopping_takes_what_waits(book, journal, clock):
    desk = Desk(book, journal, clock)
    for number in range(50):
        assert desk.thread.submit(alert(at=number))
    desk.thread.start()
    desk.thread.stop(time.monotonic() + HANG_S)
    assert sum(isinstance(notice, Alert) for notice in desk.published) == 50


def test_a_thread_that_never_started_stops(book, clock):
    thread = AlertThread(book, publish=ignore, explain=ignore, clock=clock)
    thread.stop(time.monotonic() + HANG_S)
    reasoning = ReasonThread(reason=explain, publish=ignore, timeout_s=HANG_S)
    reasoning.stop(time.monotonic() + HANG_S)


# --- the thread of reasoning ----------------------------------------------------------


def incident(number, **parts):
    return Incident("f", "high", "summary", "fork_storm", id=f"i{number}", **parts)


def explain(item, deadline=None, *, again=False):
    return Insight("fork_storm", 0.5, None, item.summary, (), incident=item.id)


@pytest.fixture
def make_reasoning():
    made = []

    def make(reason, publish, timeout_s=HANG_S):
        thread = ReasonThread(reason=reason, publish=publish, timeout_s=timeout_s)
        made.append(thread)
        thread.start()
        return thread

    yield make
    for thread in made:
        thread.stop(time.monotonic() + HANG_S)
        assert not thread._thread.is_alive()


def test_incidents_are_explained_one_at_a_time_in_their_order(make_reasoning):
    busy = threading.Lock()
    insights = []

    def reason(item, deadline, *, again):
        assert busy.acquire(blocking=False)
        busy.release()
        return explain(item)

    thread = make_reasoning(reason, insights.append)
    for number in range(20):
        thread.ask(incident(number))
    assert thread.wait_idle(time.monotonic() + HANG_S)
    assert [insight.incident for insight in insights] == [f"i{n}" for n in range(20)]


def test_a_newer_state_of_an_incident_takes_the_place_of_one_that_still_waits(make_reasoning):
    held, go_on = threading.Event(), threading.Event()
    asked = []

    def reason(item, deadline, *, again):
        asked.append((item.id, item.change))
        held.set()
        go_on.wait(HANG_S)

    thread = make_reasoning(reason, ignore)
    thread.ask(incident(1))
    assert held.wait(HANG_S)
    for item in (incident(2), incident(3), incident(2, change="worse"), incident(1)):
        thread.ask(item)
    go_on.set()
    assert thread.wait_idle(time.monotonic() + HANG_S)
    assert asked == [("i1", "opened"), ("i2", "worse"), ("i3", "opened"), ("i1", "opened")]


def test_each_has_its_time_from_when_it_was_asked_for(make_reasoning):
    held, go_on = threading.Event(), threading.Event()
    asked = []

    def reason(item, deadline, *, again):
        asked.append((item.id, deadline, again))
        held.set()
        go_on.wait(HANG_S)

    thread = make_reasoning(reason, ignore, timeout_s=5.0)
    began = time.monotonic()
    thread.ask(incident(1))
    assert held.wait(HANG_S)
    thread.ask(incident(2), again=True)
    last = time.monotonic()
    thread.ask(incident(2, change="worse"))
    go_on.set()
    assert thread.wait_idle(time.monotonic() + HANG_S)
    (_, first, _), (_, second, again) = asked
    assert began + 5 <= first <= second <= last + 5
    assert again  # a newer state is still one that somebody wanted


def test_when_stopping_nobody_has_longer_than_that(make_reasoning):
    held, go_on = threading.Event(), threading.Event()
    deadlines = []

    def reason(item, deadline, *, again):
        deadlines.append(deadline)
        held.set()
        go_on.wait(HANG_S)

    thread = make_reasoning(reason, ignore, timeout_s=10 * HANG_S)
    thread.ask(incident(1))
    assert held.wait(HANG_S)
    thread.ask(incident(2))
    end = time.monotonic() + HANG_S
    stopping = threading.Thread(target=thread.stop, args=(end,))
    stopping.start()
    eventually(lambda: thread._end == end)
    go_on.set()
    stopping.join()
    assert deadlines[0] > end
    assert deadlines[1] == end


def test_when_too_many_wait_the_oldest_stays_unexplained_and_that_is_said(
    make_reasoning, monkeypatch, caplog
):
    monkeypatch.setattr(notices_module, "MAX_WAITING_INCIDENTS", 2)
    held, go_on = threading.Event(), threading.Event()
    insights = []

    def reason(item, deadline, *, again):
        held.set()
        go_on.wait(HANG_S)
        return explain(item)

    thread = make_reasoning(reason, insights.append)
    thread.ask(incident(0))
    assert held.wait(HANG_S)
    for number in range(1, 5):
        thread.ask(incident(number))
    go_on.set()
    assert thread.wait_idle(time.monotonic() + HANG_S)
    assert [insight.incident for insight in insights] == ["i0", "i3", "i4"]
    assert "incident i1 stays unexplained: too many wait" in caplog.text


def test_one_incident_that_cannot_be_explained_does_not_end_the_others(make_reasoning, caplog):
    insights = []

    def reason(item, deadline, *, again):
        if item.id == "i1":
            raise KeyError("a fact")
        return None if item.id == "i2" else explain(item)

    thread = make_reasoning(reason, insights.append)
    for number in (1, 2, 3):
        thread.ask(incident(number))
    assert thread.wait_idle(time.monotonic() + HANG_S)
    assert [insight.incident for insight in insights] == ["i3"]
    assert "incident i1 stays unexplained: KeyError: 'a fact'" in caplog.text


def test_stopping_explains_what_waits_as_far_as_time_allows(make_reasoning, forever):
    insights = []
    thread = make_reasoning(explain, insights.append)
    for number in range(10):
        thread.ask(incident(number))
    thread.stop(time.monotonic() + HANG_S)
    assert len(insights) == 10

    def hangs(item, deadline, *, again):
        forever.wait()

    stuck = ReasonThread(reason=hangs, publish=ignore, timeout_s=HANG_S)
    stuck.start()
    stuck.ask(incident(1))
    stuck.stop(time.monotonic() + 0.01)  # returns, whatever hangs
