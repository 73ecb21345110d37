"""A full disk costs records by number, never the database, and is over by itself."""

from collections import Counter
from contextlib import closing

import pytest

from linnix_core import Batch, CgroupSample, Health, Loss, Query, RecordsLost
from linnix_plugin_sqlite import Reader, tree_at
from linnix_plugin_sqlite.handler import MAX_WAITING

KIB = 1024


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return


def hand_over(handler, batch):
    """How many records turn out to be lost."""
    lost = Counter()
    for hook, arguments in ((handler.linnix_handle, (batch,)), (handler.linnix_flush, ())):
        try:
            hook(*arguments)
        except RecordsLost as error:
            lost[error.why] += error.count
    assert set(lost) <= {"disk_full"}
    return lost.total()


def metric(handler, name):
    return {metric.name: metric.value for metric in handler.linnix_metrics()}[name]


def test_what_a_full_disk_took_is_exactly_what_is_missing(
    start_handler, make_batch, make_notices, small_disk
):
    disk = small_disk("size=4m")
    path, ballast = disk / "history.db", disk / "ballast"
    handler = start_handler(path=path)
    assert hand_over(handler, make_batch(10)) == 0
    fill(ballast)
    sent, lost = 10, 0
    for _ in range(12):
        lost += hand_over(handler, make_batch(300, cwd="/" + "x" * 1000))
        sent += 300
        assert handler.linnix_health().status == "degraded"
        assert "disk is full" in handler.linnix_health().reason
    assert 0 < lost < sent
    with pytest.raises(RecordsLost, match="disk is full"):
        handler.linnix_alert(make_notices()[0])
    ballast.unlink()
    # Nothing is restarted: the next flush writes what is still in memory, the alert too.
    lost += hand_over(handler, make_batch(10))
    assert handler.linnix_health().status == "ok"
    assert handler.linnix_health().limits == (f"{lost} records of this run were lost",)
    result = handler.linnix_query(Query(limit=100_000))
    assert len(result.records) == sent + 10 + 1 - lost
    assert metric(handler, "sqlite_lost_records") == lost
    with closing(Reader(path)) as reader:
        report = reader.check()
        assert report.problems == ()
        assert report.runs[0]["lost"] == lost
        assert report.runs[0]["stored"] == sent + 11 - lost


def test_records_of_other_types_are_lost_without_harm_to_the_tree(
    start_handler, make_batch, small_disk, now_ns, monkeypatch
):
    monkeypatch.setattr("linnix_plugin_sqlite.chunks.MAX_RAW_BYTES", 1)
    disk = small_disk("size=1m")
    handler = start_handler(path=disk / "history.db")
    assert hand_over(handler, make_batch(3)) == 0
    fill(disk / "ballast")
    losses = Batch([Loss("c", "w", 0, 0, 1, ts_ns=now_ns, seq=100 + n) for n in range(9)])
    assert hand_over(handler, losses) == 8
    (disk / "ballast").unlink()
    assert hand_over(handler, make_batch(3)) == 0
    moment = tree_at(disk / "history.db", now_ns + 10**9)
    assert len(moment.processes) == 6


def test_what_still_fits_into_memory_when_there_is_room_again_is_not_lost(
    start_handler, make_batch, small_disk
):
    disk = small_disk("size=2m")
    handler = start_handler(path=disk / "history.db")
    fill(disk / "ballast")
    for _ in range(5):
        assert hand_over(handler, make_batch(20)) == 0
    (disk / "ballast").unlink()
    assert hand_over(handler, make_batch(20)) == 0
    assert len(handler.linnix_query(Query(("event",))).records) == 120
    assert handler.linnix_health() == Health()


def test_findings_wait_for_room_and_the_oldest_go_in_the_end(
    start_handler, make_notices, small_disk, monkeypatch
):
    monkeypatch.setattr("linnix_plugin_sqlite.handler.MAX_WAITING", 20)
    assert MAX_WAITING > 20
    disk = small_disk("size=2m")
    handler = start_handler(path=disk / "history.db")
    fill(disk / "ballast")
    for number in range(25):
        with pytest.raises(RecordsLost):
            handler.linnix_alert(make_notices(number)[0])
    (disk / "ballast").unlink()
    handler.linnix_flush()
    kept = [alert.id for alert in handler.linnix_query(Query(("alert",))).records]
    assert kept == [f"a{number}" for number in range(5, 25)]
    assert handler.linnix_health().limits == ("5 records of this run were lost",)


def test_a_disk_that_is_full_at_the_start_is_no_reason_not_to_start(
    start_handler, make_batch, small_disk
):
    disk = small_disk("size=1m")
    fill(disk / "ballast")
    handler = start_handler(path=disk / "history.db")
    assert handler.linnix_health().status == "degraded"
    assert handler.linnix_query(Query()) is None
    assert hand_over(handler, make_batch(5)) == 0
    (disk / "ballast").unlink()
    handler.linnix_flush()
    assert handler.linnix_health() == Health()
    assert len(handler.linnix_query(Query()).records) == 5


def test_a_failure_is_logged_once_and_so_is_its_end(start_handler, make_batch, small_disk, logged):
    disk = small_disk("size=1m")
    path = disk / "history.db"
    handler = start_handler(path=path)
    fill(disk / "ballast")
    for _ in range(3):
        hand_over(handler, make_batch(3))
        handler.linnix_flush()
    (disk / "ballast").unlink()
    for _ in range(3):
        hand_over(handler, make_batch(3))
    assert logged == [
        ("WARNING", f"cannot write to {path}: database or disk is full"),
        ("INFO", f"writing to {path} again"),
    ]


def test_while_it_cannot_write_no_call_passes_as_if_all_were_well(
    start_handler, make_batch, make_notices, small_disk, now_ns
):
    """The agent takes a call that passes for the end of the trouble, and says so."""
    disk = small_disk("size=1m")
    handler = start_handler(path=disk / "history.db")
    fill(disk / "ballast")
    hand_over(handler, make_batch(3))
    handler.linnix_flush()
    alert, incident, insight = make_notices()
    other = Batch([CgroupSample("/a", 1, ts_ns=now_ns)])
    for hook, argument in (
        (handler.linnix_handle, make_batch(1)),
        (handler.linnix_handle, other),
        (handler.linnix_alert, alert),
        (handler.linnix_incident, incident),
        (handler.linnix_insight, insight),
    ):
        with pytest.raises(RecordsLost) as caught:
            hook(argument)
        assert (caught.value.count, caught.value.why) == (0, "disk_full")
    (disk / "ballast").unlink()
    handler.linnix_flush()
    handler.linnix_handle(other)
    handler.linnix_alert(alert)


def test_what_never_found_room_is_said_at_the_end(
    start_handler, make_batch, small_disk, stop_handler, logged
):
    disk = small_disk("size=1m")
    handler = start_handler(path=disk / "history.db")
    fill(disk / "ballast")
    hand_over(handler, make_batch(3))
    stop_handler(handler)
    assert logged[-1] == ("WARNING", "3 records were not written")
    assert metric(handler, "sqlite_lost_records") == 3


@pytest.mark.parametrize("size", ["1m", "3m"])
def test_a_disk_smaller_than_max_bytes_keeps_a_whole_database(
    start_handler, make_batch, small_disk, size
):
    disk = small_disk(f"size={size}")
    handler = start_handler(path=disk / "history.db")
    import random

    words = random.Random(7)
    sent = lost = 0
    for _ in range(40):
        text = "".join(words.choices("0123456789abcdef", k=20 * KIB))
        lost += hand_over(handler, make_batch(10, cwd=text))
        sent += 10
    assert 0 < lost < sent
    with closing(Reader(disk / "history.db")) as reader:
        assert reader.check().problems == ()
