"""What is handed over is found again, bounded by age and size."""

import sqlite3
import stat
import time
from collections import Counter
from contextlib import closing

import pytest

from linnix_core import Batch, Health, Query, RecordsLost
from linnix_plugin_sqlite import Reader, SqliteConfig, SqliteHandler
from linnix_plugin_sqlite.chunks import MAX_RAW_BYTES

MIB = 2**20


def seqs(result):
    return [record.seq for record in result.records]


def metric(handler, name):
    return {metric.name: metric.value for metric in handler.linnix_metrics()}[name]


def lost_of(handler, batch, why):
    """How many records a batch and the flush after it turn out to have cost."""
    lost = Counter()
    for hook, arguments in ((handler.linnix_handle, (batch,)), (handler.linnix_flush, ())):
        try:
            hook(*arguments)
        except RecordsLost as error:
            lost[error.why] += error.count
    assert set(lost) <= {why}
    return lost.total()


def files_bytes(path):
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


# --- what comes back ----------------------------------------------------------------------


def test_records_come_back_as_they_were(start_handler, linnix_records):
    handler = start_handler(types=("event", "sample", "cgroup", "system", "loss"))
    records = linnix_records(3000)
    for first in range(0, 3000, 256):
        handler.linnix_handle(Batch(records[first : first + 256]))
    result = handler.linnix_query(Query(limit=5000))
    assert result.complete
    assert sorted(result.records, key=lambda r: r.seq) == records


def test_they_are_there_for_who_comes_after_the_run(start_handler, make_batch, stop_handler, path):
    handler = start_handler()
    batch = make_batch(300)
    handler.linnix_handle(batch)
    stop_handler(handler)
    with closing(Reader(path)) as reader:
        assert list(reader.query(Query(("event",))).records) == list(batch)


def test_findings_come_back_and_are_there_before_the_flush(start_handler, make_notices, path):
    handler = start_handler()
    alert, incident, insight = make_notices()
    handler.linnix_alert(alert)
    handler.linnix_incident(incident)
    handler.linnix_insight(insight)
    with closing(Reader(path)) as reader:
        assert reader.query(Query()).records == (alert, incident, insight)


def test_an_incident_is_asked_for_by_its_id(start_handler, make_notices, make_batch):
    handler = start_handler()
    handler.linnix_handle(make_batch())
    for number in (1, 2):
        _, incident, insight = make_notices(number)
        handler.linnix_incident(incident)
        handler.linnix_insight(insight)
    result = handler.linnix_query(Query(incident="testrun-i2"))
    assert [(r.type, getattr(r, "incident", r.type)) for r in result.records] == [
        ("incident", "incident"),
        ("insight", "testrun-i2"),
    ]


def test_a_question_is_about_the_time_between_two_moments_both_included(start_handler, make_batch):
    handler = start_handler()
    batch = make_batch(10)
    handler.linnix_handle(batch)
    result = handler.linnix_query(Query(("event",), batch[2].ts_ns, batch[5].ts_ns))
    assert result.complete
    assert result.records == tuple(batch[2:6])


@pytest.mark.parametrize("chunks", [1, 5])
def test_the_limit_keeps_the_first_after_a_moment_and_else_the_last(
    start_handler, make_batch, chunks
):
    handler = start_handler()
    for _ in range(chunks):
        handler.linnix_handle(make_batch(200, cwd="/" + "x" * (MAX_RAW_BYTES // 200)))
    last = handler.linnix_query(Query(("event",), limit=3))
    assert (seqs(last), last.complete) == (
        [200 * chunks - 2, 200 * chunks - 1, 200 * chunks],
        False,
    )
    first = handler.linnix_query(Query(("event",), since_ns=0, limit=3))
    assert (seqs(first), first.complete) == ([1, 2, 3], False)


def test_a_limit_that_is_just_enough_is_complete(start_handler, make_batch, make_notices):
    handler = start_handler()
    handler.linnix_handle(make_batch(3))
    handler.linnix_alert(make_notices()[0])
    assert handler.linnix_query(Query(limit=4)).complete
    assert not handler.linnix_query(Query(limit=3)).complete
    assert len(handler.linnix_query(Query(limit=3)).records) == 3


def test_a_type_of_which_nothing_is_kept_is_no_mistake(start_handler, make_batch):
    handler = start_handler()
    handler.linnix_handle(make_batch(3))
    handler.linnix_flush()
    assert handler.linnix_query(Query(("sample", "no_such_type", "tree"))).records == ()


def test_before_the_start_and_after_the_stop_there_is_no_history(
    make_handler, stop_handler, make_batch
):
    handler = make_handler()
    assert handler.linnix_query(Query()) is None
    handler.linnix_start()
    stop_handler(handler)
    assert handler.linnix_query(Query()) is None
    with pytest.raises(RecordsLost) as caught:
        handler.linnix_handle(make_batch(3))
    assert caught.value.count == 3


def test_it_answers_the_agents_question(linnix_runtime, linnix_records):
    agent = linnix_runtime(handlers={"sqlite": SqliteHandler}, records=linnix_records(2000))
    assert agent.wait_idle(60)
    asked = agent.host.context(agent.host.components[0]).query
    assert asked is not None
    result = agent._query(Query(("event",), limit=10_000))
    given = [r for r in linnix_records(2000) if r.type == "event"]
    assert len(result.records) == len(given)


def test_stored_and_waiting_records_are_counted(start_handler, make_batch, make_notices):
    handler = start_handler()
    handler.linnix_handle(make_batch(5))
    assert metric(handler, "sqlite_waiting_records") == 5
    handler.linnix_flush()
    handler.linnix_alert(make_notices()[0])
    assert metric(handler, "sqlite_stored_records") == 6
    assert metric(handler, "sqlite_waiting_records") == 0
    assert handler.linnix_health() == Health()


# --- configuration ------------------------------------------------------------------------


def test_without_a_path_it_is_in_the_data_folder(linnix_context, stop_handler):
    context = linnix_context("handlers.sqlite")
    handler = SqliteHandler(SqliteConfig(), context)
    handler.linnix_start()
    stop_handler(handler)
    assert (context.data_dir / "history.db").is_file()


def test_only_the_types_that_are_named_are_kept(start_handler, linnix_records):
    handler = start_handler(types=("system",))
    records = linnix_records(2000)
    handler.linnix_handle(Batch(records))
    assert list(handler.linnix_query(Query(limit=5000)).records) == [
        record for record in records if record.type == "system"
    ]


def test_what_is_older_than_max_age_goes(start_handler, make_event, now_ns, clock):
    handler = start_handler(max_age=3600.0)
    handler.linnix_handle(Batch([make_event(pid=1)]))
    handler.linnix_flush()
    for second in (3500, 3650):
        clock.ns = now_ns + second * 10**9
        handler.linnix_handle(Batch([make_event(pid=second, ts_ns=clock.ns)]))
        handler.linnix_flush()
        kept = [record.pid for record in handler.linnix_query(Query(("event",))).records]
        assert kept == ([1, 3500] if second == 3500 else [3500, 3650])


def test_findings_have_an_age_of_their_own(start_handler, make_batch, make_notices, now_ns, clock):
    handler = start_handler(max_age=60.0, findings_max_age=3600.0)
    handler.linnix_handle(make_batch(3))
    handler.linnix_alert(make_notices(1, now_ns)[0])
    handler.linnix_flush()
    for minutes, kept in ((30, ["a1", "a30"]), (61, ["a30", "a61"])):
        clock.ns = now_ns + minutes * 60 * 10**9
        handler.linnix_alert(make_notices(minutes, clock.ns)[0])
        handler.linnix_flush()
        result = handler.linnix_query(Query())
        assert [record.id for record in result.records] == kept


def test_a_record_from_the_future_does_not_make_everything_old(start_handler, make_event, now_ns):
    handler = start_handler(max_age=60.0)
    handler.linnix_handle(Batch([make_event()]))
    handler.linnix_handle(Batch([make_event(pid=8, ts_ns=now_ns + 10**18)]))
    handler.linnix_flush()
    assert len(handler.linnix_query(Query(("event",))).records) == 2


def test_a_clock_that_is_set_forward_by_mistake_makes_nothing_old(start_handler, make_event, clock):
    elapsed_s = 0.0
    clock.monotonic = lambda: elapsed_s
    handler = start_handler(max_age=3600.0)

    def pass_(seconds, set_to_s=0):
        nonlocal elapsed_s
        elapsed_s += seconds
        clock.ns += (seconds + set_to_s) * 10**9
        handler.linnix_handle(Batch([make_event(pid=int(elapsed_s), ts_ns=clock.ns)]))
        handler.linnix_flush()
        return [record.pid for record in handler.linnix_query(Query(("event",))).records]

    week_s = 7 * 86_400
    assert pass_(20) == [20]
    assert pass_(20, week_s) == [20, 40]
    assert pass_(500) == [20, 40, 540]
    assert sorted(pass_(20, -week_s)) == [20, 40, 540, 560]
    # What is old is old from then on as before.
    assert 20 not in pass_(3600)
    # If it is no mistake, it is believed after a while.
    assert len(pass_(20, week_s)) > 1
    assert pass_(601) == [4180, 4781]


def incompressible(random, count):
    return ["".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))]


def test_all_files_together_never_pass_max_bytes_and_the_latest_is_kept(
    start_handler, make_event, path
):
    import random

    generator = random.Random(7)
    handler = start_handler(max_bytes=8 * MIB)
    largest = 0
    for _ in range(40):
        batch = Batch(
            [make_event(pid=pid, args=tuple(incompressible(generator, 2000))) for pid in range(256)]
        )
        handler.linnix_handle(batch)
        handler.linnix_flush()
        largest = max(largest, files_bytes(path))
    assert 4 * MIB < largest <= 8 * MIB
    kept = seqs(handler.linnix_query(Query(("event",), limit=100_000)))
    assert kept == list(range(kept[0], 40 * 256 + 1))
    assert kept[0] > 1
    assert metric(handler, "sqlite_lost_records") == 0


def test_a_storm_of_alerts_does_not_push_out_all_events(
    start_handler, make_batch, make_notices, path
):
    handler = start_handler(max_bytes=8 * MIB)
    handler.linnix_handle(make_batch(100))
    handler.linnix_flush()
    alert, _, _ = make_notices(message="x" * 60_000)
    for _ in range(200):
        handler.linnix_alert(alert)
    assert files_bytes(path) <= 8 * MIB
    assert len(handler.linnix_query(Query(("event",))).records) == 100
    assert 10 < len(handler.linnix_query(Query(("alert",))).records) < 200
    assert handler.linnix_health() == Health()


def test_a_reader_who_never_ends_costs_records_and_not_the_bound(start_handler, make_event, path):
    import random

    generator = random.Random(7)
    handler = start_handler(max_bytes=8 * MIB)
    handler.linnix_handle(Batch([make_event()]))
    handler.linnix_flush()
    lost = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chunks").fetchall()
        for _ in range(12):
            texts = [tuple(incompressible(generator, 2000)) for _ in range(256)]
            batch = Batch([make_event(pid=n, args=args) for n, args in enumerate(texts, 10)])
            lost += lost_of(handler, batch, "size_limit")
            assert files_bytes(path) <= 8 * MIB
        assert lost
        assert handler.linnix_health().status == "degraded"
    lost += lost_of(handler, Batch([make_event(pid=5)]), "size_limit")
    assert handler.linnix_health().status == "ok"
    assert metric(handler, "sqlite_lost_records") == lost


def test_a_smaller_bound_is_kept_by_the_next_run(
    start_handler, stop_handler, make_event, path, clock
):
    import random

    generator = random.Random(7)
    handler = start_handler(max_bytes=64 * MIB)
    for _ in range(30):
        handler.linnix_handle(
            Batch(
                [
                    make_event(pid=pid, args=tuple(incompressible(generator, 2000)))
                    for pid in range(256)
                ]
            )
        )
    stop_handler(handler)
    assert files_bytes(path) > 9 * MIB
    handler = start_handler(max_bytes=8 * MIB)
    for _ in range(20):
        clock.ns += 11 * 10**9
        handler.linnix_handle(Batch([make_event(ts_ns=clock.ns)]))
        handler.linnix_flush()
    print(
        [(f.name, f.stat().st_size) for f in path.parent.glob("hist*")],
        [
            handler._store._number(f"PRAGMA {x}")
            for x in ("page_count", "freelist_count", "max_page_count")
        ],
    )
    assert files_bytes(path) <= 8 * MIB
    assert handler.linnix_query(Query(("event",), limit=1)).records[0].ts_ns == clock.ns


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_bytes", MIB, "max_bytes must be at least 8MiB"),
        ("max_age", 0.0, "max_age must be at least 1s"),
        ("findings_max_age", 0.5, "findings_max_age must be at least 1s"),
        ("checkpoint", 0.0, "checkpoint must be at least 1s"),
        ("path", "", "path must name a file"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(key, value, said):
    from pathlib import Path

    with pytest.raises(ValueError, match=said):
        SqliteConfig(**{key: Path(value) if key == "path" else value})


# --- files --------------------------------------------------------------------------------


def test_only_the_owner_can_read_the_files(make_handler, make_batch, tmp_path):
    import os

    before = os.umask(0)
    try:
        handler = make_handler(path=tmp_path / "a" / "b" / "history.db")
        handler.linnix_start()
        handler.linnix_handle(make_batch())
        handler.linnix_flush()
    finally:
        os.umask(before)
    files = list((tmp_path / "a" / "b").iterdir())
    assert {file.suffix for file in files} >= {".db", ".db-wal", ".db-shm", ".lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_stop_leaves_one_database_without_a_log(start_handler, make_batch, stop_handler, path):
    handler = start_handler()
    handler.linnix_handle(make_batch())
    stop_handler(handler)
    assert {file.name for file in path.parent.glob("history.db*")} == {
        "history.db",
        "history.db.lock",
    }


def test_a_stop_does_not_wait_for_a_write_that_hangs(start_handler):
    handler = start_handler()
    with handler._lock:
        handler.linnix_stop(deadline=time.monotonic())
    assert handler.linnix_query(Query()) is not None
