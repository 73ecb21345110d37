"""The threads of collectors and handlers: what they call, how they count, how they fail.

Section 6 of the architecture: five failures in a row quarantine a component, with retries
that back off; one that is missing something says so once; a stop always flushes.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time

import pytest

from linnix_core import (
    Alert,
    Evidence,
    Incident,
    PluginUnavailable,
    ProcessEvent,
    RecordsLost,
    hookimpl,
)
from linnix_core import workers as workers_module
from linnix_core.pipeline import BoundedQueue, Counts
from linnix_core.testing.waiting import eventually
from linnix_core.workers import CollectorWorker, FailureGate, HandlerWorker

HANG_S = 60.0
LOGGER = logging.getLogger("linnix.test")


def forks(count):
    return [ProcessEvent("fork", pid=1 + n, start_ns=10_000_000) for n in range(count)]


# --- the gate -------------------------------------------------------------------------


def test_the_fifth_failure_in_a_row_brings_pauses_that_double_up_to_a_minute():
    gate = FailureGate()
    assert [gate.failed() for _ in range(13)] == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_success_ends_the_row():
    gate = FailureGate()
    for _ in range(20):
        gate.failed()
    gate.passed()
    assert [gate.failed() for _ in range(5)] == [0, 0, 0, 0, 1]


def test_days_of_failures_still_end_in_the_longest_pause():
    gate = FailureGate()
    assert {gate.failed() for _ in range(5000)} == {0, 1, 2, 4, 8, 16, 32, 60}


# --- handlers -------------------------------------------------------------------------


class Handler:
    """A handler in its thread, with the queue that a test fills."""

    def __init__(self, component, overflow="block"):
        self.component = component
        self.queue = BoundedQueue(10_000, overflow)
        self.alerts = []
        self.worker = HandlerWorker(
            component,
            self.queue,
            logger=LOGGER,
            stop=threading.Event(),
            on_alerts=lambda sender, alerts: self.alerts.extend(alerts),
        )
        self.worker.start()

    def send(self, *counts):
        """One batch of each count, handled before the next is sent."""
        for count in counts:
            self.queue.put(forks(count))
            assert self.queue.wait_idle(time.monotonic() + HANG_S)

    def end(self):
        self.worker.hurry.set()
        self.queue.close()
        assert self.worker.join(time.monotonic() + HANG_S), "the thread did not end"


@pytest.fixture
def run_handler(make_component):
    """Run a class as a handler; its thread ends with the test."""
    running = []

    def run(cls):
        handler = Handler(make_component("handlers.tested", cls))
        running.append(handler)
        return handler

    yield run
    for handler in running:
        handler.end()


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(workers_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(workers_module, "LAST_PAUSE_S", 0.001)


def scripted(journal, *script):
    """A handler whose n-th batch raises the n-th of the script; None, and the end of it, pass."""

    errors = iter(script)

    class Scripted:
        @hookimpl
        def linnix_handle(self, batch):
            error = next(errors, None)
            journal.note("raises" if error else "passes")
            if error is not None:
                raise error

    return Scripted


def test_batches_and_notices_arrive_one_by_one_in_their_order(run_handler, journal):
    class Notes:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note(("handle", len(batch)))

        @hookimpl
        def linnix_alert(self, alert):
            journal.note(("alert", alert.rule))

        @hookimpl
        def linnix_incident(self, incident):
            journal.note(("incident", incident.summary))

    handler = run_handler(Notes)
    queue = handler.queue
    with queue._changed:  # all of them wait before the first is taken
        queue.put(forks(1))
        queue.put_notice("linnix_alert", Alert("a", "low", "m"))
        queue.put(forks(2))
        queue.put_notice("linnix_incident", Incident("f", "low", "i"))
        queue.put_notice("linnix_insight", "nobody here wants it")
        queue.put(forks(3))
    assert queue.wait_idle(time.monotonic() + HANG_S)
    assert journal.entries == [
        ("handle", 1),
        ("alert", "a"),
        ("handle", 2),
        ("incident", "i"),
        ("handle", 3),
    ]
    assert queue.counts() == Counts(6, 6, 0)


def test_a_failed_batch_is_counted_as_dropped_and_the_next_makes_it_well(run_handler, journal):
    handler = run_handler(scripted(journal, ValueError("no such column")))
    handler.send(3)
    status = handler.component.status()
    assert (status.state, status.code) == ("degraded", "crash")
    assert status.reason == "linnix_handle: ValueError: no such column"
    assert status.counters["failures"] == 1
    handler.send(2)
    assert handler.component.state == "running"
    assert handler.queue.counts() == Counts(5, 2, 0, {"error": 3})


def test_five_failures_in_a_row_quarantine_until_a_retry_passes(run_handler, journal, monkeypatch):
    monkeypatch.setattr(workers_module, "FIRST_PAUSE_S", 10 * HANG_S)
    monkeypatch.setattr(workers_module, "LAST_PAUSE_S", 10 * HANG_S)
    handler = run_handler(scripted(journal, *[OSError("down")] * 5))
    handler.send(1, 1, 1, 1, 1)
    assert handler.component.status().code == "quarantined"
    assert handler.component.status().reason == (
        "linnix_handle: OSError: down; 5 failures in a row, next try in 600 s"
    )
    handler.queue.put(forks(7))
    assert handler.queue.waiting == 7  # it is left alone
    handler.worker.hurry.set()  # as the end of a run does
    assert journal.wait_for("passes")
    eventually(lambda: handler.component.state == "running")
    assert handler.queue.counts().dropped == {"error": 5}


def test_what_others_found_wrong_is_not_settled_by_a_batch(run_handler, journal):
    handler = run_handler(scripted(journal))
    handler.component.set_state("degraded", "reload", "goes on with what it had")
    handler.send(1, 1)
    handler.worker.watch(0.0)
    assert handler.component.status().code == "reload"


def test_a_call_that_stalled_settles_nothing_but_that(run_handler, journal):
    handler = run_handler(scripted(journal))
    handler.worker.busy_since = time.monotonic() - 1
    handler.worker.watch(0.1)
    assert handler.component.status().code == "stalled"
    handler.component.set_state("degraded", "reload", "goes on with what it had")
    handler.worker.busy_since = None
    handler.worker.watch(0.1)
    assert handler.component.status().code == "reload"


def test_four_failures_and_a_success_do_not_quarantine(run_handler, journal, monkeypatch):
    monkeypatch.setattr(workers_module, "FIRST_PAUSE_S", 10 * HANG_S)
    down = OSError("down")
    handler = run_handler(scripted(journal, *[down] * 4, None, *[down] * 4, None))
    handler.send(*[1] * 10)
    assert handler.component.state == "running"
    assert handler.component.failures == 8


def test_a_handler_that_fails_for_ever_is_tried_for_ever(run_handler, journal, no_pauses):
    handler = run_handler(scripted(journal, *[OSError("down")] * 40))
    handler.send(*[1] * 40)
    assert handler.component.status().code == "quarantined"
    handler.send(1)
    assert handler.component.state == "running"


def test_records_lost_are_counted_and_never_quarantine(run_handler, journal):
    full = RecordsLost(2, "disk_full", "no space left on out.jsonl")
    handler = run_handler(scripted(journal, *[full] * 10))
    handler.send(*[5] * 10)
    status = handler.component.status()
    assert (status.state, status.code) == ("degraded", "disk_full")
    assert status.reason == "no space left on out.jsonl"
    assert handler.component.failures == 0
    assert handler.queue.counts() == Counts(50, 30, 0, {"disk_full": 20})
    handler.send(5)
    assert handler.component.state == "running"


@pytest.mark.parametrize(("said", "lost"), [(99, 5), (0, 0), (-3, 0)])
def test_no_more_records_can_be_lost_than_there_were(run_handler, journal, said, lost):
    handler = run_handler(scripted(journal, RecordsLost(said, "sink", "some")))
    handler.send(5)
    assert handler.queue.counts() == Counts(5, 5 - lost, 0, {"sink": lost} if lost else {})


def test_a_count_that_is_none_is_a_mistake_of_the_handler(run_handler, journal):
    class Miscounts:
        @hookimpl
        def linnix_handle(self, batch):
            raise RecordsLost(None, "sink", "some")

    handler = run_handler(Miscounts)
    handler.send(5, 5)
    assert handler.component.status().code == "crash"
    assert handler.queue.counts() == Counts(10, 0, 0, {"error": 10})


@pytest.mark.parametrize("hook", ["linnix_handle", "linnix_alert", "linnix_flush"])
def test_a_handler_that_becomes_unavailable_says_so_once_and_is_left_alone(
    run_handler, journal, monkeypatch, hook
):
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 0.001)

    class Leaves:
        def _leave(self, where):
            if where == hook:
                journal.note(where)
                raise PluginUnavailable("the server has gone", hint="start it again")

        @hookimpl
        def linnix_handle(self, batch):
            self._leave("linnix_handle")

        @hookimpl
        def linnix_alert(self, alert):
            self._leave("linnix_alert")

        @hookimpl
        def linnix_flush(self):
            self._leave("linnix_flush")

    handler = run_handler(Leaves)
    handler.queue.put(forks(3))
    handler.queue.put_notice("linnix_alert", Alert("a", "low", "m"))
    assert journal.wait_for(hook)
    assert handler.worker.join(time.monotonic() + HANG_S), "its thread goes on"
    status = handler.component.status()
    assert (status.state, status.code) == ("unavailable", "capability")
    assert (status.reason, status.hint) == ("the server has gone", "start it again")
    handler.queue.put(forks(4))
    counts = handler.queue.counts()
    assert counts.received == 7 == counts.handled + counts.lost
    assert journal.entries == [hook]


def test_returned_alerts_are_passed_on_also_from_a_generator(run_handler):
    class Alarms:
        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                yield Alert("forks", "low", f"pid {record.pid}", evidence=(Evidence("n", 1, "n"),))

    handler = run_handler(Alarms)
    handler.send(2)
    assert [alert.message for alert in handler.alerts] == ["pid 1", "pid 2"]
    assert handler.queue.counts() == Counts(2, 2, 0)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_generator_that_raises_on_the_way_is_a_failed_batch(run_handler, error):
    class HalfWay:
        @hookimpl
        def linnix_handle(self, batch):
            yield Alert("forks", "low", "the first")
            raise error

    handler = run_handler(HalfWay)
    handler.send(1, 1)
    assert handler.component.status().code == "crash"
    assert handler.component.failures == 2
    assert handler.queue.counts() == Counts(2, 0, 0, {"error": 2})


def test_an_answer_that_cannot_be_read_is_a_failed_batch(run_handler):
    class Answers:
        @hookimpl
        def linnix_handle(self, batch):
            return 7

    handler = run_handler(Answers)
    handler.send(1)
    assert handler.component.status().reason.startswith("linnix_handle: TypeError")
    assert handler.queue.counts() == Counts(1, 0, 0, {"error": 1})


def test_a_busy_handler_is_flushed_now_and_then_and_an_idle_one_is_not(
    run_handler, journal, monkeypatch
):
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 0.01)

    class Flushes:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note("handle")

        @hookimpl
        def linnix_flush(self):
            journal.note("flush")

    handler = run_handler(Flushes)
    handler.send(1)
    assert journal.wait_for("flush")  # also when nothing more comes
    for flushes in (2, 3):
        # And while batches come without a pause.
        while journal.count("flush") < flushes:
            handler.send(1)
    entries = journal.entries
    assert ("flush", "flush") not in itertools.pairwise(entries)


def test_a_handler_with_nothing_to_flush_sleeps_until_something_comes(run_handler):
    class Handles:
        @hookimpl
        def linnix_handle(self, batch):
            pass

    handler = run_handler(Handles)
    waited, get = [], handler.queue.get

    def noted(timeout=None):
        waited.append(timeout)
        return get(timeout)

    handler.queue.get = noted
    handler.send(1, 1)
    handler.end()
    assert set(waited) == {None}


def test_the_last_thing_before_the_end_is_a_flush(run_handler, journal, monkeypatch):
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 10 * HANG_S)

    class Flushes:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note(len(batch))

        @hookimpl
        def linnix_alert(self, alert):
            journal.note("alert")

        @hookimpl
        def linnix_flush(self):
            journal.note("flush")

    handler = run_handler(Flushes)
    with handler.queue._changed:
        handler.queue.put(forks(1))
        handler.queue.put(forks(2))
        handler.queue.put_notice("linnix_alert", Alert("a", "low", "m"))
        handler.queue.close()
    # It ends at once, not when the next flush would have been due.
    assert handler.worker.join(time.monotonic() + HANG_S)
    assert journal.entries == [1, 2, "alert", "flush"]


def test_what_only_the_flush_finds_lost_is_no_longer_counted_as_handled(
    run_handler, journal, monkeypatch
):
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 0.001)

    class LosesInFlush:
        @hookimpl
        def linnix_handle(self, batch):
            pass

        @hookimpl
        def linnix_flush(self):
            if not journal.count("lost"):
                journal.note("lost")
                raise RecordsLost(2, "sync", "the disk did not take them")

    handler = run_handler(LosesInFlush)
    handler.send(5)
    eventually(lambda: handler.queue.counts() == Counts(5, 3, 0, {"sync": 2}))


def test_a_flush_that_fails_is_shown_until_one_passes(run_handler, journal, monkeypatch, caplog):
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 0.001)
    full = threading.Event()
    full.set()

    class FailsToFlush:
        @hookimpl
        def linnix_handle(self, batch):
            pass

        @hookimpl
        def linnix_flush(self):
            journal.note("flush")
            if full.is_set():
                raise SystemExit(1)

    handler = run_handler(FailsToFlush)
    handler.send(1)
    eventually(lambda: handler.component.status().code == "flush")
    assert handler.component.status().reason == "linnix_flush: SystemExit: 1"
    for flushes in range(2, 9):
        handler.send(1)  # that batches pass says nothing of the flush
        assert journal.wait_for("flush", times=flushes)
        assert handler.component.status().code == "flush"
    assert caplog.text.count("linnix_flush: SystemExit: 1") == 1
    full.clear()
    handler.send(1)
    eventually(lambda: handler.component.state == "running")


def test_a_call_that_does_not_return_is_shown_as_stalled_until_it_does(
    run_handler, journal, forever
):
    class Stalls:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note("in")
            forever.wait()

    handler = run_handler(Stalls)
    handler.queue.put(forks(1))
    assert journal.wait_for("in")
    handler.worker.watch(HANG_S)
    assert handler.component.state == "running"
    eventually(lambda: handler.worker.watch(0.0) or handler.component.state == "degraded")
    assert handler.component.status().code == "stalled"
    forever.set()
    assert handler.queue.wait_idle(time.monotonic() + HANG_S)
    eventually(lambda: handler.worker.watch(0.0) or handler.component.state == "running")


# --- collectors -----------------------------------------------------------------------


class Collector:
    """A collector in its thread, and the queue that it fills."""

    def __init__(self, component, interval_s=0.001):
        self.component = component
        self.queue = BoundedQueue(10_000, "drop_newest")
        self.stop = threading.Event()
        self.finished = threading.Event()
        self.worker = CollectorWorker(
            component,
            self.queue,
            interval_s=interval_s,
            logger=LOGGER,
            stop=self.stop,
            on_finished=self.finished.set,
        )

    def end(self):
        self.stop.set()
        assert self.worker.join(time.monotonic() + HANG_S), "the thread did not end"
        assert self.finished.is_set()

    def pids(self):
        return [record.pid for item in self.queue.get_all() for record in item.argument]


@pytest.fixture
def run_collector(make_component):
    """Run a class as a collector; its thread ends with the test."""
    running = []

    def run(cls, interval_s=0.001):
        collector = Collector(make_component("collectors.tested", cls), interval_s)
        collector.worker.start()
        running.append(collector)
        return collector

    yield run
    for collector in running:
        collector.end()


def test_a_collector_that_crashes_is_started_again_and_goes_on_emitting(run_collector, journal):
    class CrashesOnce:
        @hookimpl
        def linnix_collect(self, sink, stop):
            sink.emit(forks(1)[0])
            if not journal.count("crashed"):
                journal.note("crashed")
                raise ConnectionError("the ring is gone")
            journal.note("streams")
            stop.wait()

    collector = run_collector(CrashesOnce)
    assert journal.wait_for("streams")
    assert collector.component.failures == 1
    assert collector.component.status().reason == (
        "linnix_collect: ConnectionError: the ring is gone"
    )
    assert collector.pids() == [1, 1]


def test_a_collector_that_streams_again_has_recovered(run_collector, journal):
    class CrashesOnce:
        @hookimpl
        def linnix_collect(self, sink, stop):
            journal.note("called")
            if journal.count("called") == 1:
                raise ConnectionError("the ring is gone")
            stop.wait()

    collector = run_collector(CrashesOnce)
    assert journal.wait_for("called", times=2)
    collector.worker.watch(HANG_S)
    assert collector.component.state == "degraded"  # not before it has lasted
    eventually(lambda: collector.worker.watch(0.0) or collector.component.runs)
    eventually(lambda: collector.worker.watch(0.0) or collector.component.state == "running")


@pytest.mark.parametrize("hook", ["linnix_collect", "linnix_poll"])
def test_a_collector_that_crashes_five_times_in_a_row_is_tried_again_later(
    run_collector, journal, monkeypatch, hook
):
    monkeypatch.setattr(workers_module, "FIRST_PAUSE_S", 10 * HANG_S)
    monkeypatch.setattr(workers_module, "LAST_PAUSE_S", 10 * HANG_S)

    class Crashes:
        def _crash(self):
            journal.note("crash")
            raise SystemExit(1)

    if hook == "linnix_collect":

        class Tested(Crashes):
            @hookimpl
            def linnix_collect(self, sink, stop):
                self._crash()
    else:

        class Tested(Crashes):
            @hookimpl
            def linnix_poll(self):
                self._crash()

    collector = run_collector(Tested)
    eventually(lambda: collector.component.status().code == "quarantined")
    assert collector.component.status().reason.endswith(
        "SystemExit: 1; 5 failures in a row, next try in 600 s"
    )
    assert journal.count("crash") == 5
    assert collector.worker.alive  # and the pause ends with the run, as the fixture checks


def test_a_poll_that_passes_ends_the_row_of_failures(run_collector, journal, no_pauses):
    class Recovers:
        @hookimpl
        def linnix_poll(self):
            journal.note("poll")
            if journal.count("poll") <= 7:
                raise OSError("busy")
            return forks(1)

    collector = run_collector(Recovers)
    eventually(lambda: collector.queue.counts().received)
    eventually(lambda: collector.component.state == "running")
    assert collector.component.failures == 7


def test_a_collector_is_polled_at_its_interval(run_collector, journal):
    class Polls:
        @hookimpl
        def linnix_poll(self):
            journal.note("poll")
            return forks(2)

    often = run_collector(Polls, interval_s=0.001)
    assert journal.wait_for("poll", times=5)
    often.end()
    polls = journal.count("poll")
    assert often.queue.counts().received == 2 * polls
    seldom = run_collector(Polls, interval_s=10 * HANG_S)
    assert journal.wait_for("poll", times=polls + 1)  # at once, and then not for a while
    seldom.end()
    assert journal.count("poll") == polls + 1


@pytest.mark.parametrize(("takes", "waits"), [(3, [0, 7, 7, 7]), (35, [0, 0, 0, 0])])
def test_polls_keep_the_beat_but_do_not_make_up_for_beats_they_missed(
    make_component, monkeypatch, clock, takes, waits
):
    class Polls:
        @hookimpl
        def linnix_poll(self):
            clock.advance(takes)

    class Stop:
        """Waits on the clock of the test, and comes with the fourth look at it."""

        def __init__(self):
            self.waited = []

        def wait(self, timeout):
            self.waited.append(timeout)
            clock.advance(timeout)
            return len(self.waited) == 4

    collector = Collector(make_component("collectors.tested", Polls), interval_s=10)
    collector.worker._stop = Stop()
    monkeypatch.setattr(workers_module, "time", clock)
    collector.worker._poll()
    assert collector.worker._stop.waited == waits


@pytest.mark.parametrize("polled", [None, [], (), iter(())])
def test_a_poll_may_find_nothing(run_collector, journal, polled):
    class Finds:
        @hookimpl
        def linnix_poll(self):
            journal.note("poll")
            return polled

    collector = run_collector(Finds)
    assert journal.wait_for("poll", times=3)
    assert collector.component.failures == 0
    assert collector.queue.counts() == Counts()


def test_a_poll_may_be_a_generator_and_what_it_raises_is_the_plugins(
    run_collector, journal, no_pauses
):
    class Generates:
        @hookimpl
        def linnix_poll(self):
            journal.note("poll")
            if journal.count("poll") == 1:
                yield forks(1)[0]
                raise SystemExit(2)
            yield from forks(3)

    collector = run_collector(Generates)
    assert journal.wait_for("poll", times=3)
    collector.end()
    polls = journal.count("poll")
    assert collector.component.failures == 1
    assert collector.queue.counts().received == 3 * (polls - 1)


@pytest.mark.parametrize("answer", [7, object()])
def test_a_poll_that_returns_no_records_at_all_is_a_failure(
    run_collector, journal, no_pauses, answer
):
    class Answers:
        @hookimpl
        def linnix_poll(self):
            journal.note("poll")
            return answer

    collector = run_collector(Answers)
    assert journal.wait_for("poll", times=3)
    assert collector.component.failures >= 2
    assert collector.component.status().reason.startswith("linnix_poll: TypeError")


@pytest.mark.parametrize("hook", ["linnix_collect", "linnix_poll"])
def test_a_collector_that_becomes_unavailable_is_not_called_again(run_collector, journal, hook):
    class Leaves:
        def leave(self):
            journal.note("called")
            raise PluginUnavailable("needs CAP_BPF", hint="sudo linnix run")

    if hook == "linnix_collect":

        class Tested(Leaves):
            @hookimpl
            def linnix_collect(self, sink):
                self.leave()
    else:

        class Tested(Leaves):
            @hookimpl
            def linnix_poll(self):
                self.leave()

    collector = run_collector(Tested)
    assert collector.finished.wait(HANG_S)
    status = collector.component.status()
    assert (status.state, status.code) == ("unavailable", "capability")
    assert (status.reason, status.hint) == ("needs CAP_BPF", "sudo linnix run")
    assert journal.count("called") == 1


def test_a_collector_that_returns_has_finished(run_collector):
    class Replay:
        @hookimpl
        def linnix_collect(self, sink, stop):
            sink.emit_many(forks(3))
            sink.lost("truncated", 2)
            sink.lost("never", 0)

    collector = run_collector(Replay)
    assert collector.finished.wait(HANG_S)
    status = collector.component.status()
    assert (status.state, status.code) == ("stopped", "finished")
    assert collector.worker.counters() == {"received": 5, "handled": 0, "dropped": 2, "queued": 3}
    assert collector.queue.counts().dropped == {"truncated": 2}
    assert collector.pids() == [1, 2, 3]


def test_a_collector_that_returns_because_of_the_stop_has_not_finished(run_collector, journal):
    class Obeys:
        @hookimpl
        def linnix_collect(self, sink, stop):
            journal.note("streams")
            stop.wait()

    collector = run_collector(Obeys)
    assert journal.wait_for("streams")
    collector.end()
    assert collector.component.state == "running"  # the host stops it later


def test_several_threads_of_a_collector_may_emit_at_once(run_collector):
    class Threads:
        @hookimpl
        def linnix_collect(self, sink, stop):
            threads = [
                threading.Thread(target=lambda: [sink.emit_many(forks(2)) for _ in range(100)])
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    collector = run_collector(Threads)
    assert collector.finished.wait(HANG_S)
    assert collector.queue.counts().received == 800
    assert len(collector.pids()) == 800
