"""The way from collectors to handlers: queues that count exactly, and the thread between them.

Section 5 of the architecture: ``received = handled + dropped + queued`` at any moment,
cumulative losses by window, and one ``seq`` for everything, without gaps.
"""

from __future__ import annotations

import threading
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from linnix_core import Alert, Batch, Evidence, Loss, ProcessEvent, ProcessSample, hookimpl
from linnix_core import pipeline as pipeline_module
from linnix_core.pipeline import ENOUGH, BoundedQueue, Counts, Pipeline, Stamp
from linnix_core.processes import ProcessTable
from linnix_core.testing.waiting import eventually
from linnix_core.workers import CollectorSink

HANG_S = 60.0


def forks(count, first=1):
    return [ProcessEvent("fork", pid=first + n, start_ns=10_000_000) for n in range(count)]


def balanced(counts: Counts) -> bool:
    return counts.received == counts.handled + counts.lost + counts.queued


def drain(queue):
    """Take what waits, as a handler that has no trouble would."""
    taken = []
    for item in queue.get_all():
        taken.append(item.argument)
        finish(queue, item)
    return taken


def finish(queue, item):
    if item.records:
        queue.done(item.records)
    else:
        queue.notice_done()


# --- queues ---------------------------------------------------------------------------


class QueueMachine(RuleBasedStateMachine):
    """Any operations in any order, beside a model that follows each record by its number."""

    LIMIT = 6

    def __init__(self):
        super().__init__()
        self.queue = BoundedQueue(self.LIMIT, "drop_oldest")
        self.number = 0
        self.sent = 0
        self.taken = []
        self.in_hand = 0
        self.notices_sent = []
        self.notices_taken = []

    @rule(count=st.integers(0, 9))
    def put(self, count):
        self.queue.put(range(self.number, self.number + count))
        self.number += count
        self.sent += count

    @rule()
    def put_notice(self):
        notice = f"notice {len(self.notices_sent)}"
        if self.queue.put_notice("linnix_alert", notice):
            self.notices_sent.append(notice)

    @rule()
    def get(self):
        item = self.queue.get(timeout=0)
        if item is not None:
            self._take(item)

    @rule()
    def get_all(self):
        for item in self.queue.get_all():
            self._take(item)

    def _take(self, item):
        if item.records:
            self.taken.extend(item.argument)
            self.in_hand += item.records
        else:
            self.notices_taken.append(item.argument)
            self.queue.notice_done()

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def done(self, data):
        records = data.draw(st.integers(1, self.in_hand))
        self.queue.done(records, data.draw(st.integers(0, records)), "error")
        self.in_hand -= records

    @rule(count=st.integers(1, 5))
    def lost_before(self, count):
        self.queue.count_lost("ring_full", count)
        self.sent += count

    @rule()
    def discard(self):
        self.queue.discard("stopped")
        self.notices_sent = list(self.notices_taken)

    @rule()
    def close(self):
        self.queue.close()

    @invariant()
    def nothing_is_unaccounted_for(self):
        counts = self.queue.counts()
        assert balanced(counts)
        assert counts.received == self.sent
        assert counts.queued == self.queue.waiting + self.in_hand

    @invariant()
    def order_is_kept(self):
        assert self.taken == sorted(self.taken)
        assert self.notices_taken == self.notices_sent[: len(self.notices_taken)]


class NewestQueueMachine(QueueMachine):
    def __init__(self):
        super().__init__()
        self.queue = BoundedQueue(self.LIMIT, "drop_newest")


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
NewestQueueMachine.TestCase.settings = QueueMachine.TestCase.settings
TestQueueThatDropsTheOldest = QueueMachine.TestCase
TestQueueThatDropsTheNewest = NewestQueueMachine.TestCase


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
def test_the_equation_holds_while_threads_send_and_read(overflow):
    queue = BoundedQueue(16, overflow)
    senders = [
        threading.Thread(target=lambda: [queue.put(range(5)) for _ in range(200)]) for _ in range(3)
    ]
    unbalanced = []
    over = threading.Event()

    def read():
        while (item := queue.get(HANG_S)) is not None:
            queue.done(item.records, lost=1, why="error")

    def watch():
        while not over.is_set():
            counts = queue.counts()
            if not balanced(counts):
                unbalanced.append(counts)

    reader, watcher = threading.Thread(target=read), threading.Thread(target=watch)
    for thread in (reader, watcher, *senders):
        thread.start()
    for thread in senders:
        thread.join(HANG_S)
    queue.close()
    reader.join(HANG_S)
    over.set()
    watcher.join(HANG_S)
    counts = queue.counts()
    assert not unbalanced
    assert balanced(counts)
    assert counts.received == 3000
    assert counts.queued == 0
    if overflow == "block":
        assert counts.dropped == {"error": 600}


def test_a_full_queue_drops_its_oldest_batches():
    queue = BoundedQueue(6, "drop_oldest")
    for batch in ("abc", "def", "ghi"):
        queue.put(batch)
    assert drain(queue) == ["def", "ghi"]
    assert queue.counts() == Counts(9, 6, 0, {"queue_full": 3})


def test_a_full_queue_drops_the_newest_batch():
    queue = BoundedQueue(6, "drop_newest")
    for batch in ("abc", "def", "ghi"):
        queue.put(batch)
    assert drain(queue) == ["abc", "def"]
    assert queue.counts() == Counts(9, 6, 0, {"queue_full": 3})


def test_a_full_queue_holds_its_sender_until_there_is_room():
    queue = BoundedQueue(6, "block")
    queue.put("abcdef")
    sender = threading.Thread(target=queue.put, args=("ghi",))
    sender.start()
    eventually(lambda: queue._changed._waiters)
    # While it waits, the sender still has its records: they are not received yet.
    assert queue.counts() == Counts(6, 0, 6)
    assert drain(queue) == ["abcdef"]
    sender.join(HANG_S)
    assert drain(queue) == ["ghi"]
    assert queue.counts() == Counts(9, 9, 0)


def test_closing_lets_a_waiting_sender_go_and_counts_what_it_had():
    queue = BoundedQueue(2, "block")
    queue.put("ab")
    sender = threading.Thread(target=queue.put, args=("cd",))
    sender.start()
    eventually(lambda: queue._changed._waiters)
    queue.close()
    sender.join(HANG_S)
    assert drain(queue) == ["ab"]
    assert queue.counts() == Counts(4, 2, 0, {"stopped": 2})


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
def test_a_batch_larger_than_the_queue_passes_alone(overflow):
    queue = BoundedQueue(2, overflow)
    queue.put("abcdef")
    assert drain(queue) == ["abcdef"]
    assert queue.counts() == Counts(6, 6, 0)


def test_notices_are_never_dropped_to_make_room():
    queue = BoundedQueue(2, "drop_oldest")
    for number in range(50):
        queue.put(f"{number:02}")
        assert queue.put_notice("linnix_alert", number)
    items = queue.get_all()
    assert [item.argument for item in items if not item.records] == list(range(50))
    assert [item.argument for item in items if item.records] == ["49"]
    assert items[-1].argument == 49  # and they keep their place


def test_notices_that_nobody_takes_are_refused_at_last(monkeypatch):
    monkeypatch.setattr(pipeline_module, "MAX_NOTICES", 3)
    queue = BoundedQueue(2, "drop_oldest")
    assert [queue.put_notice("linnix_alert", n) for n in range(5)] == [True] * 3 + [False] * 2
    queue.get(timeout=0)
    assert queue.put_notice("linnix_alert", 5)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
def test_a_closed_queue_gives_what_it_has_and_takes_nothing(overflow):
    queue = BoundedQueue(2, overflow)
    queue.put("ab")
    queue.close()
    queue.put("cd")
    assert not queue.put_notice("linnix_alert", "late")
    assert not queue.finished
    item = queue.get()
    finish(queue, item)
    assert item.argument == "ab"
    assert queue.get() is None
    assert queue.finished
    assert queue.counts() == Counts(4, 2, 0, {"stopped": 2})


def test_a_queue_is_idle_only_when_nothing_is_in_hand_either():
    queue = BoundedQueue(9, "drop_oldest")
    queue.put("abc")
    queue.put_notice("linnix_alert", "fire")
    batch, notice = queue.get(), queue.get()
    assert not queue.wait_idle(time.monotonic())
    finish(queue, batch)
    assert not queue.wait_idle(time.monotonic())
    finish(queue, notice)
    assert queue.wait_idle(time.monotonic())


# --- the pipeline ---------------------------------------------------------------------


@pytest.fixture
def make_pipeline(clock):
    """A pipeline on a clock that stands still; it ends with the test."""
    made = []

    def make(**options):
        stamp = Stamp(host="here", run_id="run", boot_id="boot", clock=clock)
        options.setdefault("linger_s", 0.001)
        pipeline = Pipeline(stamp=stamp, table=ProcessTable(), clock=clock, **options)
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        for side in (*pipeline._sources, *pipeline._sinks):
            side.queue.close()
        assert pipeline.stop(time.monotonic() + HANG_S)


def take(queue, count):
    """Read until there are ``count`` records; the batches they came in."""
    batches = []
    while sum(map(len, batches)) < count:
        item = queue.get(HANG_S)
        assert item is not None, f"only {batches} came"
        finish(queue, item)
        batches.append(item.argument)
    return batches


def flat(batches):
    return [record for batch in batches for record in batch]


def test_records_arrive_in_order_in_batches_of_at_most_the_batch_size(make_pipeline):
    pipeline = make_pipeline(batch_size=4)
    source, sink = pipeline.source("collectors.c", 1000, "block"), pipeline.sink("h", 1000, "block")
    given = forks(23)
    source.put(given[:10])
    source.put(given[10:11])
    source.put(given[11:])
    pipeline.start()
    batches = take(sink, 23)
    assert all(isinstance(batch, Batch) and 1 <= len(batch) <= 4 for batch in batches)
    assert [record.pid for record in flat(batches)] == [record.pid for record in given]


def test_every_handler_gets_the_same_batch(make_pipeline):
    pipeline = make_pipeline()
    source = pipeline.source("collectors.c", 100, "block")
    sinks = [pipeline.sink(f"handlers.{n}", 100, "drop_oldest") for n in range(3)]
    pipeline.start()
    source.put(forks(5))
    first, *others = [take(sink, 5) for sink in sinks]
    assert all(batch is same for other in others for batch, same in zip(first, other, strict=True))


def test_few_records_wait_for_more_to_share_a_batch(make_pipeline):
    pipeline = make_pipeline(batch_size=100, linger_s=HANG_S)
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    pipeline.start()
    for record in forks(3):
        source.put([record])
    assert pipeline.stop(time.monotonic() + HANG_S)  # nobody lingers once it is over
    assert [len(batch) for batch in drain(sink)] == [3]


def test_a_full_batch_does_not_linger(make_pipeline):
    pipeline = make_pipeline(batch_size=4, linger_s=10 * HANG_S)
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    pipeline.start()
    source.put(forks(4))
    assert [len(batch) for batch in take(sink, 4)] == [4]


def test_what_a_collector_gathered_does_not_linger_either(make_pipeline):
    pipeline = make_pipeline(batch_size=10 * ENOUGH, linger_s=10 * HANG_S)
    source = pipeline.source("collectors.c", 10 * ENOUGH, "block")
    sink = pipeline.sink("h", 10 * ENOUGH, "block")
    pipeline.start()
    source.put(forks(ENOUGH))
    assert [len(batch) for batch in take(sink, ENOUGH)] == [ENOUGH]


def test_seq_has_no_gaps_across_sources_batches_and_notices(make_pipeline):
    pipeline = make_pipeline(batch_size=7)
    stamp = pipeline._stamp
    sources = [pipeline.source(f"collectors.{n}", 50, "block") for n in range(2)]
    sink = pipeline.sink("handlers.h", 10_000, "block")
    notices = [Alert("rule", "low", "message") for _ in range(100)]
    senders = [
        threading.Thread(target=lambda s=source: [s.put([*forks(3), "junk"]) for _ in range(100)])
        for source in sources
    ]
    senders.append(threading.Thread(target=lambda: [stamp.notice(notice) for notice in notices]))
    pipeline.start()
    for sender in senders:
        sender.start()
    batches = take(sink, 600)
    for sender in senders:
        sender.join(HANG_S)
    in_order = [record.seq for record in flat(batches)]
    assert in_order == sorted(in_order)
    assert sorted([*in_order, *(n.seq for n in notices)]) == list(range(1, 701))


def test_a_record_is_stamped_with_what_it_does_not_say_itself(make_pipeline, clock):
    pipeline = make_pipeline()
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    told = ProcessEvent("fork", pid=1, start_ns=0, boot_id="an earlier boot", ts_ns=7)
    source.put([told, *forks(1)])
    pipeline.start()
    first, second = flat(take(sink, 2))
    assert (first.host, first.run_id, first.boot_id, first.ts_ns) == (
        "here",
        "run",
        "an earlier boot",
        7,
    )
    assert (second.boot_id, second.ts_ns) == ("boot", clock.time_ns())


def test_a_list_that_the_collector_uses_again_does_not_change_what_was_emitted(make_pipeline):
    pipeline = make_pipeline()
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    emit_many = CollectorSink(source).emit_many
    reused = forks(3)
    emit_many(reused)
    reused[:] = forks(2, first=100)
    emit_many(reused)
    reused.clear()
    pipeline.start()
    assert [record.pid for record in flat(take(sink, 5))] == [1, 2, 3, 100, 101]


@pytest.mark.parametrize(
    "junk",
    [
        None,
        7,
        "fork",
        {"type": "event"},
        Alert("rule", "low", "no record of a collector"),
        ProcessEvent,
        Evidence("a", 1, "b"),
        ProcessEvent("fork", pid="7", start_ns=0),
        ProcessEvent("fork", pid=7, start_ns=None),
        ProcessEvent("exec", pid=[], start_ns=0),
        ProcessEvent("fork", pid=7, start_ns=0, ppid={}, parent_start_ns=0),
        ProcessEvent("fork", pid=7, start_ns=0, ppid=1, parent_start_ns="0"),
        ProcessEvent("fork", pid=7, start_ns=0, boot_id=[]),
        ProcessEvent("fork", pid=7, start_ns=0, comm=None),
        ProcessEvent("fork", pid=7, start_ns=0, args=7),
        ProcessSample(pid=[], start_ns=0, interval_ns=1),
    ],
    ids=repr,
)
def test_what_is_no_valid_record_is_counted_and_the_others_pass(make_pipeline, junk):
    pipeline = make_pipeline()
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    before, after = forks(2)
    pipeline.start()
    source.put([before, junk, after])
    assert [record.seq for record in flat(take(sink, 2))] == [1, 2]
    assert source.wait_idle(time.monotonic() + HANG_S)
    assert source.counts() == Counts(3, 2, 0, {"invalid": 1})


_ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
)
_FIELDS = [field.name for field in attrs.fields(ProcessEvent) if field.init]
_LIVING = ("fork", "exec", "exit", "seen")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(_LIVING), st.dictionaries(st.sampled_from(_FIELDS), _ANYTHING)),
        max_size=8,
    )
)
def test_the_pipeline_outlives_events_of_any_content(wrong):
    stamp = Stamp(host="here", run_id="run", boot_id="boot", clock=time)
    pipeline = Pipeline(stamp=stamp, table=ProcessTable(), clock=time, linger_s=0.001)
    source, sink = pipeline.source("collectors.c", 1000, "block"), pipeline.sink("h", 1000, "block")
    for number, (kind, fields) in enumerate(wrong):
        source.put([ProcessEvent(**{"kind": kind, "pid": number, "start_ns": 0, **fields})])
    last = ProcessEvent("fork", pid=4242, start_ns=0)
    source.put([last])
    pipeline.start()
    assert pipeline.stop(time.monotonic() + HANG_S)
    arrived = flat(drain(sink))
    assert any(record is last for record in arrived)
    assert [record.seq for record in arrived] == list(range(1, len(arrived) + 1))
    assert balanced(source.counts())
    assert source.counts().queued == 0


def test_the_table_knows_a_record_before_any_handler_does(make_pipeline):
    pipeline = make_pipeline()
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    pipeline.start()
    source.put([ProcessEvent("fork", pid=42, start_ns=0, comm="cc1")])
    take(sink, 1)
    assert pipeline._table.view.find(42).comm == "cc1"


def test_a_stop_that_comes_while_the_pipeline_wakes_up_is_not_missed(make_pipeline, monkeypatch):
    """Whoever calls ``stop`` may meet the thread between any two of its steps."""
    monkeypatch.setattr(pipeline_module, "LOSS_WINDOW_S", 10 * HANG_S)
    pipeline = make_pipeline()

    class StopsWhileCleared(threading.Event):
        def clear(self):
            pipeline._stopping.set()
            self.set()
            super().clear()

    pipeline._wake = StopsWhileCleared()
    pipeline._wake.set()
    pipeline.start()
    pipeline._thread.join(HANG_S)
    assert not pipeline._thread.is_alive()


# --- losses ---------------------------------------------------------------------------


class Windows:
    """A pipeline with a full handler and an attentive one, and windows that end on request."""

    def __init__(self, pipeline, clock, room=4):
        self._clock = clock
        self.source = pipeline.source("collectors.c", 10_000, "block")
        self.full = pipeline.sink("handlers.full", room, "drop_newest")
        self.attentive = pipeline.sink("handlers.attentive", 10_000, "block")
        pipeline.start()

    def send(self, count):
        """Send events, each in a batch of its own, and wait until they have passed."""
        for record in forks(count):
            self.source.put([record])
            take(self.attentive, 1)

    def end(self, seconds=10.0):
        """Let a window end; what it tells."""
        self._clock.advance(seconds)
        self.source.put(forks(1))
        take(self.attentive, 1)
        item = self.attentive.get(HANG_S)
        assert item is not None, "no losses came"
        self.attentive.done(item.records)
        return list(item.argument)


@pytest.fixture
def windows(make_pipeline, clock):
    return Windows(make_pipeline(batch_size=1), clock)


def test_losses_are_told_by_window_with_counters_that_balance(windows):
    windows.send(10)  # the full handler has room for four
    (first,) = windows.end()  # and lost the event that ended the window too
    windows.send(5)
    (second,) = windows.end(12.5)
    for loss in (first, second):
        assert isinstance(loss, Loss)
        assert (loss.component, loss.why) == ("handlers.full", "queue_full")
        assert loss.received == loss.handled + loss.dropped + loss.queued
        assert loss.dropped == loss.lost_total
    assert (first.lost, first.lost_total, first.window_ns) == (7, 7, 10 * 10**9)
    # The second window lost five events, the one that ended it, and the first Loss itself.
    assert (second.lost, second.lost_total, second.window_ns) == (7, 14, 12_500_000_000)
    assert second.seq > first.seq


def test_a_loss_that_was_itself_lost_is_made_good_by_the_next(windows):
    """Counters never travel through a queue that can drop: each Loss tells all of the past."""
    windows.send(6)
    told = [windows.end()[0] for _ in range(5)]
    assert [loss.lost_total for loss in told] == [3, 5, 7, 9, 11]
    # The last Loss did not get into the full queue either, and nobody has told that yet.
    assert windows.full.counts().dropped == {"queue_full": 12}


def test_each_reason_is_told_and_a_window_without_losses_is_silent(make_pipeline, clock):
    windows = Windows(make_pipeline(batch_size=1), clock, room=10_000)
    windows.source.count_lost("ring_full", 3)
    windows.source.count_lost("throttled", 2)
    windows.source.put(["junk"])
    told = {loss.why: loss for loss in windows.end()}
    assert {why: loss.lost for why, loss in told.items()} == {
        "ring_full": 3,
        "throttled": 2,
        "invalid": 1,
    }
    assert {loss.component for loss in told.values()} == {"collectors.c"}
    for loss in told.values():
        # What the source made is what came plus what did not; what came was one junk too many.
        assert loss.emitted == loss.received + 3 + 2
        assert loss.dropped == 1
        assert loss.received == loss.handled + loss.dropped + loss.queued
    clock.advance(10)
    windows.send(2)  # the first of them ended a window
    assert windows.source.wait_idle(time.monotonic() + HANG_S)
    assert windows.attentive.counts().received == 1 + 3 + 2


def test_what_was_lost_last_is_told_at_the_end(make_pipeline, clock):
    pipeline = make_pipeline()
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    pipeline.start()
    source.count_lost("ring_full", 5)
    assert pipeline.stop(time.monotonic() + HANG_S)
    (loss,) = flat(drain(sink))
    assert (loss.component, loss.why, loss.lost) == ("collectors.c", "ring_full", 5)


# --- enrichment and holding back ------------------------------------------------------


def test_a_batch_is_enriched_once_after_the_table_and_before_any_handler(make_pipeline):
    enriched = []

    def enrich(batch):
        assert sink.counts().received == sum(map(len, enriched))
        assert pipeline._table.view.find(batch[0].pid) is not None
        enriched.append(batch)
        for record in batch:
            record.labels = {"unit": "cron.service"}

    pipeline = make_pipeline(batch_size=5, enrich=enrich)
    source, sink = pipeline.source("collectors.c", 100, "block"), pipeline.sink("h", 100, "block")
    source.put(forks(10))
    pipeline.start()
    batches = take(sink, 10)
    assert enriched == batches
    assert {record.labels["unit"] for record in flat(batches)} == {"cron.service"}


class EmitsTwice:
    """One record, and another after the first was handled everywhere."""

    def __init__(self, config, context):
        pass

    go_on = None

    @hookimpl
    def linnix_collect(self, sink, stop):
        sink.emit_many(forks(1))
        if self.go_on is not None:
            self.go_on.wait(HANG_S)
        sink.emit_many(forks(1, first=2))
        stop.wait(HANG_S)


def labels_of(journal):
    class Reads:
        def __init__(self, config, context):
            pass

        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                if record.type == "event":
                    journal.note((record.pid, record.labels))

    return Reads


def test_labels_of_an_enricher_reach_every_handler(make_agent, journal, monkeypatch):
    monkeypatch.setattr("linnix_core.agent.ENRICH_BUDGET_S", HANG_S)

    class Enricher:
        def __init__(self, config, context):
            pass

        @hookimpl
        def linnix_enrich(self, batch):
            for record in batch:
                record.labels = {"pod": f"p{record.pid}"}

    agent = make_agent(
        {
            # The order of the configuration does not matter: handlers come after enrichment.
            "handlers.reads": labels_of(journal),
            "handlers.enricher": Enricher,
            "collectors.c": EmitsTwice,
        }
    )
    with agent:
        assert journal.wait_for((1, {"pod": "p1"}))
        assert journal.wait_for((2, {"pod": "p2"}))


@pytest.mark.parametrize("trouble", ["hangs", "raises", "exits"])
def test_an_enricher_in_trouble_costs_labels_only(make_agent, journal, forever, trouble):
    class Enricher:
        def __init__(self, config, context):
            pass

        @hookimpl
        def linnix_enrich(self, batch):
            if trouble == "hangs":
                forever.wait()
            elif trouble == "raises":
                raise OSError("no cache")
            raise SystemExit(9)

    agent = make_agent(
        {
            "handlers.enricher": Enricher,
            "handlers.reads": labels_of(journal),
            "collectors.c": EmitsTwice,
        }
    )
    with agent:
        assert journal.wait_for((1, None))
        assert journal.wait_for((2, None))
        (status,) = [s for s in agent.status() if s.component == "handlers.enricher"]
        assert (status.state, status.code) == ("degraded", "enrich")
        assert status.reason.startswith("labels are missing: linnix_enrich: ")
        assert status.counters["failures"] >= 1


def test_block_holds_back_the_pipeline_and_loses_nothing(make_pipeline):
    pipeline = make_pipeline(batch_size=1)
    source = pipeline.source("collectors.c", 3, "drop_newest")
    slow = pipeline.sink("handlers.slow", 1, "block")
    quick = pipeline.sink("handlers.quick", 100, "drop_oldest")
    pipeline.start()
    source.put(forks(1))
    take(quick, 1)
    source.put(forks(1, first=2))
    eventually(lambda: slow._changed._waiters)  # the pipeline waits for the slow one
    # Notices pass by, to everyone, and the collector's own queue still takes records.
    assert slow.put_notice("linnix_alert", "fire")
    assert quick.put_notice("linnix_alert", "fire")
    source.put(forks(3, first=3))
    source.put(forks(1, first=6))
    assert source.counts().dropped == {"queue_full": 1}
    received = flat([b for b in take(slow, 1) if not isinstance(b, str)])
    while len(received) < 5:
        item = slow.get(HANG_S)
        assert item is not None
        if item.records:
            received.extend(item.argument)
        finish(slow, item)
    assert [record.pid for record in received] == [1, 2, 3, 4, 5]
    assert slow.counts().dropped == {}
