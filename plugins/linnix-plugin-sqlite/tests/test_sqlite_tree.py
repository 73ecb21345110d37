"""The tree at a moment is what the events up to that moment say, however it is stored."""

import logging
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import linnix_plugin_sqlite.chunks
import linnix_plugin_sqlite.handler
from linnix_core import (
    Batch,
    Context,
    LinnixError,
    ProcessEvent,
    ProcessTable,
    ProcessView,
    Query,
    RecordsLost,
)
from linnix_plugin_sqlite import Reader, SqliteConfig, SqliteHandler, tree_at
from linnix_plugin_sqlite.living import ENDED_NS, Living

SECOND_NS = 10**9
NAMES = ("comm", "exe", "args", "uid", "gid", "cwd", "cgroup", "labels")


# --- a naive model: all events, from the beginning, in plain dictionaries -----------------


def naive(events, ts_ns):
    alive, ended = {}, set()
    for event in events:
        if event.ts_ns > ts_ns:
            continue
        key = (event.boot_id, event.pid, event.start_ns)
        said = {name: getattr(event, name) for name in NAMES}
        parent = None
        if event.ppid is not None and event.parent_start_ns is not None:
            parent = (event.boot_id, event.ppid, event.parent_start_ns)
        if event.kind == "exit":
            alive.pop(key, None)
            ended.add(key)
        elif key in alive:
            known = alive[key]
            known["parent"] = known["parent"] or parent
            for name, value in said.items():
                if event.kind == "exec" and (value is not None or name in ("exe", "args")):
                    known[name] = value or known[name] if name == "comm" else value
                elif known[name] is None or known[name] == "":
                    known[name] = value
        elif key not in ended:
            same_pid = [other for other in alive if other[1] == event.pid]
            if any(other[0] == key[0] and other[2] > key[2] for other in same_pid):
                continue
            for other in same_pid:
                del alive[other]
                ended.add(other)
            if event.kind == "fork" and parent in alive:
                for name in NAMES:
                    if name != "labels" and said[name] in (None, ""):
                        said[name] = alive[parent][name]
            alive[key] = {**said, "parent": parent}
    return alive


def as_model(processes):
    return {
        tuple(process.key): {
            **{name: getattr(process, name) for name in NAMES},
            "parent": None if process.parent is None else tuple(process.parent),
        }
        for process in processes
    }


some = st.none() | st.sampled_from(["a", "b"])
events = st.lists(
    st.builds(
        ProcessEvent,
        kind=st.sampled_from(["fork", "fork", "exec", "exit", "seen", "oom"]),
        pid=st.integers(1, 4),
        start_ns=st.integers(0, 3),
        ppid=st.none() | st.integers(1, 4),
        parent_start_ns=st.none() | st.integers(0, 3),
        uid=st.none() | st.integers(0, 1),
        gid=st.none() | st.integers(0, 1),
        comm=st.sampled_from(["", "sh", "evil\x1b[2J\nname"]),
        exe=some,
        args=st.none() | st.tuples(st.sampled_from(["x", "\ud7ff é\u2028"])),
        cwd=some,
        cgroup=some,
        labels=st.none() | st.just({"unit": "u"}),
        # Out of order, as records of several CPUs are; within what tombstones cover.
        ts_ns=st.integers(1, ENDED_NS),
        boot_id=st.sampled_from(["boot", "boot", "other"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(events=events, batch=st.integers(1, 8), flush=st.integers(1, 4), data=st.data())
def test_at_every_moment_it_is_what_a_naive_reading_of_all_events_says(events, batch, flush, data):
    snapshots = data.draw(st.integers(1, 12))
    raw_bytes = data.draw(st.sampled_from([300, 2000, 10**6]))
    moments = data.draw(st.lists(st.integers(0, ENDED_NS + 1), min_size=1, max_size=6))
    for seq, event in enumerate(events, 1):
        event.seq = seq
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(linnix_plugin_sqlite.handler, "SNAPSHOT_EVENTS", snapshots)
        patch.setattr(linnix_plugin_sqlite.chunks, "MAX_RAW_BYTES", raw_bytes)
        path = Path(folder) / "history.db"
        handler = SqliteHandler(SqliteConfig(path=path), context_in(folder))
        handler.linnix_start()
        for number, first in enumerate(range(0, len(events), batch)):
            handler.linnix_handle(Batch(events[first : first + batch]))
            if number % flush == 0:
                handler.linnix_flush()
        handler.linnix_stop(time.monotonic() + 30)
        with closing(Reader(path)) as reader:
            for ts_ns in moments:
                expected = naive(events, ts_ns)
                if any(event.ts_ns <= ts_ns for event in events):
                    assert as_model(reader.tree_at(ts_ns).processes) == expected
                else:
                    with pytest.raises(LinnixError):
                        reader.tree_at(ts_ns)


def context_in(folder):
    return Context(
        component="handlers.sqlite",
        logger=logging.getLogger("linnix.handlers.sqlite"),
        run_id="testrun",
        host="testhost",
        processes=ProcessView(),
        incidents=None,
        data_dir=Path(folder) / "data",
    )


@settings(max_examples=100, deadline=None)
@given(events=events, cut=st.integers(0, 60))
def test_from_a_snapshot_on_it_goes_on_as_if_there_had_been_none(events, cut):
    whole, before = Living(), Living()
    for event in events[:cut]:
        before.apply(event)
    after = Living.restored(before.snapshot())
    for event in events[cut:]:
        after.apply(event)
    for event in events:
        whole.apply(event)
    assert as_model(after) == as_model(whole)
    assert after.latest_ns == whole.latest_ns


# --- against the process table of the core ------------------------------------------------


def test_on_a_realistic_host_it_is_what_the_agents_own_table_showed(
    start_handler, linnix_records, monkeypatch, path
):
    monkeypatch.setattr(linnix_plugin_sqlite.handler, "SNAPSHOT_EVENTS", 700)
    handler = start_handler()
    table, shown = ProcessTable(), {}
    records = linnix_records(12_000, seed=3)
    for first in range(0, len(records), 200):
        batch = records[first : first + 200]
        table.update(batch)
        handler.linnix_handle(Batch(batch))
        if first % 1000 == 0:
            handler.linnix_flush()
        # Records of the same moment may follow in the next batch.
        if first + 200 == len(records) or records[first + 200].ts_ns > batch[-1].ts_ns:
            shown[batch[-1].ts_ns] = as_model(table.view)
    handler.linnix_flush()
    assert len(shown) > 20
    snapshots = 0
    with closing(Reader(path)) as reader:
        snapshots = len(reader._all("SELECT id FROM chunks WHERE type = 'tree'"))
        for ts_ns, expected in shown.items():
            moment = reader.tree_at(ts_ns)
            assert as_model(moment.processes) == expected
            assert moment.recording
    assert snapshots > 5


# --- tombstones ---------------------------------------------------------------------------


def test_a_fork_that_comes_after_its_exit_brings_nobody_back(make_event):
    living = Living()
    living.apply(make_event("exit", pid=8))
    living.apply(make_event("fork", pid=8))
    assert len(living) == 0


def test_after_a_while_the_ended_are_forgotten(make_event):
    living = Living()
    living.apply(make_event("exit", pid=8, ts_ns=1))
    living.apply(make_event("exit", pid=9, ts_ns=2 + ENDED_NS))
    living.apply(make_event("seen", pid=8, ts_ns=2 + ENDED_NS))
    assert [process.pid for process in living] == [8]


def test_memory_is_bounded_under_endless_new_pids(make_event, monkeypatch):
    monkeypatch.setattr("linnix_plugin_sqlite.living.MAX_LIVING", 128)
    monkeypatch.setattr("linnix_plugin_sqlite.living.MAX_ENDED", 64)
    living = Living()
    for pid in range(1000):
        living.apply(make_event(pid=pid))
        living.apply(make_event("exit", pid=10_000 + pid))
    pids = [process.pid for process in living]
    assert 100 < len(pids) <= 128
    assert pids == list(range(1000 - len(pids), 1000))
    assert len(living._ended) <= 64
    assert len(living._by_pid) == len(pids)


# --- how much has to be read --------------------------------------------------------------


def snapshot_times(handler):
    reader = handler._reader
    return [ts for (ts,) in reader._all("SELECT since_ns FROM chunks WHERE type = 'tree'")]


def test_checkpoint_says_how_often_the_living_are_written_down(start_handler, make_event, now_ns):
    handler = start_handler(checkpoint=10.0)
    for second in range(1, 31):
        ts_ns = now_ns + second * SECOND_NS
        handler.linnix_handle(Batch([make_event(pid=second % 3, ts_ns=ts_ns) for _ in range(5)]))
        handler.linnix_flush()
    # The first at once, so that the start of a run need not be kept.
    assert [(ts_ns - now_ns) // SECOND_NS for ts_ns in snapshot_times(handler)] == [1, 11, 21]


def test_where_little_happens_they_are_written_down_seldom(start_handler, make_event, now_ns):
    handler = start_handler(checkpoint=10.0)
    handler.linnix_handle(Batch([make_event(pid=pid, ts_ns=now_ns) for pid in range(100)]))
    for minute in range(35):
        ts_ns = now_ns + minute * 60 * SECOND_NS
        handler.linnix_handle(Batch([make_event("exec", pid=1, ts_ns=ts_ns)]))
        handler.linnix_flush()
    minutes = [(ts_ns - now_ns) // (60 * SECOND_NS) for ts_ns in snapshot_times(handler)]
    assert minutes == [0, 15, 30]


def test_in_a_storm_events_decide(start_handler, make_event, monkeypatch):
    monkeypatch.setattr(linnix_plugin_sqlite.handler, "SNAPSHOT_EVENTS", 100)
    handler = start_handler()
    for _ in range(10):
        handler.linnix_handle(Batch([make_event("exec", pid=1) for _ in range(60)]))
        handler.linnix_flush()
    # The first at once, and then after every second batch.
    assert len(snapshot_times(handler)) == 1 + 4


# --- a clock that is set ------------------------------------------------------------------


@pytest.mark.parametrize(
    "jumps_s",
    [(-3600,), (-7200, 3600, -900), (30 * 86_400, -30 * 86_400), (-600, 30 * 86_400, -31 * 86_400)],
)
@pytest.mark.parametrize("checkpoint", [1.0, 86_400.0])
def test_every_moment_stays_what_it_was_when_the_clock_is_set(
    start_handler, make_event, clock, path, jumps_s, checkpoint
):
    handler, told = start_handler(max_age=86_400.0, checkpoint=checkpoint), {}
    elapsed_s, pid = 0.0, 0
    clock.monotonic = lambda: elapsed_s
    for jump_s in (0, *jumps_s):
        clock.ns += jump_s * SECOND_NS
        for _ in range(12):
            for _ in range(5):
                pid, elapsed_s, clock.ns = pid + 1, elapsed_s + 2, clock.ns + 2 * SECOND_NS
                events = [make_event(pid=pid, ts_ns=clock.ns)]
                if pid > 5:
                    events.append(make_event("exit", pid=pid - 5, ts_ns=clock.ns))
                handler.linnix_handle(Batch(events))
            handler.linnix_flush()
            told.setdefault(clock.ns, set(range(max(pid - 4, 1), pid + 1)))
    for ts_ns, alive in told.items():
        moment = tree_at(path, ts_ns)
        assert {process.pid for process in moment.processes} == alive
        assert (moment.as_of_ns, moment.recording) == (ts_ns, True)


# --- what is not known --------------------------------------------------------------------


def test_before_the_first_record_nothing_is_known(start_handler, make_batch, path, now_ns):
    start_handler().linnix_handle(make_batch())
    with pytest.raises(LinnixError, match="holds no events"):
        tree_at(path, now_ns)


def test_what_was_deleted_is_not_guessed(start_handler, make_event, now_ns, clock, path):
    handler = start_handler(max_age=1800.0, checkpoint=600.0)
    for minute in range(120):
        clock.ns = now_ns + minute * 60 * SECOND_NS
        handler.linnix_handle(Batch([make_event(pid=minute + 1, ts_ns=clock.ns)]))
        handler.linnix_flush()
    with pytest.raises(LinnixError, match="does not reach back so far") as caught:
        tree_at(path, now_ns + 60 * SECOND_NS)
    later_s = int(caught.value.hint.split()[4])
    moment = tree_at(path, now_ns + (60 + later_s) * SECOND_NS)
    assert len(moment.processes) == 2 + later_s // 60
    for minute in range(110, 120):
        assert len(tree_at(path, now_ns + minute * 60 * SECOND_NS).processes) == minute + 1


def test_between_two_runs_it_is_the_end_of_the_first_and_says_so(
    start_handler, stop_handler, make_event, now_ns, clock, path
):
    for start in (0, 1000):
        clock.ns = now_ns + start * SECOND_NS
        handler = start_handler()
        handler.linnix_handle(Batch([make_event("seen", pid=start + 1, ts_ns=clock.ns)]))
        clock.ns += 10 * SECOND_NS
        stop_handler(handler)
    during, between, second = (
        tree_at(path, now_ns + after * SECOND_NS) for after in (5, 500, 1000)
    )
    assert [process.pid for process in during.processes] == [1]
    assert during.recording
    assert [process.pid for process in between.processes] == [1]
    assert not between.recording
    assert between.as_of_ns == now_ns
    assert [process.pid for process in second.processes] == [1001]


def test_where_records_were_lost_it_says_so_and_the_next_snapshot_mends_it(
    start_handler, make_event, make_batch, monkeypatch, path, now_ns
):
    monkeypatch.setattr(linnix_plugin_sqlite.chunks, "MAX_RAW_BYTES", 1)
    handler = start_handler()
    handler.linnix_handle(make_batch(3))
    handler.linnix_flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        handler._store._connection.execute("PRAGMA busy_timeout = 1")
        handler.linnix_handle(Batch([make_event(pid=1)]))
        with pytest.raises(RecordsLost):
            handler.linnix_handle(Batch([make_event(pid=2)]))
        other.execute("ROLLBACK")
    with pytest.raises(RecordsLost) as caught:
        handler.linnix_flush()
    assert (caught.value.count, caught.value.why) == (1, "locked")
    handler.linnix_handle(Batch([make_event(pid=3)]))
    handler.linnix_flush()
    moment = tree_at(path, now_ns + SECOND_NS)
    assert {process.pid for process in moment.processes} >= {1, 2, 3}
    assert moment.lost == 1
    assert len(handler.linnix_query(Query(("event",))).records) == 5
