"""A full disk loses records by number, tears no line, and is over by itself."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Alert, Health, Insight, RecordsLost, decode
from linnix_plugin_jsonl.handler import MAX_WAITING
from linnix_plugin_jsonl.output import NotWritten
from linnix_plugin_jsonl.rotating import RotatingFile


def records_in(path):
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [decode(line) for line in data.splitlines()]


def alert(number):
    return Alert(rule=f"rule-{number}", severity="high", message="m")


def metric(handler, name):
    return {metric.name: metric.value for metric in handler.linnix_metrics()}[name]


def handle(handler, batch):
    """How many records of the batch were lost."""
    try:
        handler.linnix_handle(batch)
    except RecordsLost as lost:
        return lost.count
    return 0


# --- a disk that is really full -----------------------------------------------------------


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return


def test_what_a_full_disk_took_is_exactly_what_is_missing(start_handler, make_batch, small_disk):
    disk = small_disk("size=256k")
    path, ballast = disk / "linnix.jsonl", disk / "ballast"
    handler = start_handler(path=str(path))
    sent = lost = 0
    for _ in range(3):
        fill(ballast)
        missing = handle(handler, make_batch(50))
        assert missing
        assert handler.linnix_health().status == "degraded"
        assert "No space left on device" in handler.linnix_health().reason
        records_in(path)  # whole, also now
        ballast.unlink()
        assert handle(handler, make_batch(50)) == 0
        assert handler.linnix_health() == Health("ok")
        sent, lost = sent + 100, lost + missing
    written = [record.seq for record in records_in(path)]
    assert len(written) == sent - lost
    assert written == sorted(set(written))
    assert metric(handler, "jsonl_lost_records") == lost


def test_alerts_and_insights_wait_for_room_and_are_written_first(
    start_handler, make_batch, small_disk
):
    disk = small_disk("size=64k")
    path, ballast = disk / "linnix.jsonl", disk / "ballast"
    handler = start_handler(path=str(path))
    fill(ballast)
    handler.linnix_alert(alert(1))
    handler.linnix_insight(Insight("cpu_spin", 0.5, None, "why", ()))
    assert handle(handler, make_batch(2)) == 2
    assert metric(handler, "jsonl_waiting_records") == 2
    ballast.unlink()
    handler.linnix_handle(make_batch(2))
    assert [record.type for record in records_in(path)] == ["alert", "insight", "event", "event"]
    assert metric(handler, "jsonl_waiting_records") == 0


def test_what_waits_is_written_by_the_next_flush(start_handler, small_disk):
    disk = small_disk("size=64k")
    path, ballast = disk / "linnix.jsonl", disk / "ballast"
    handler = start_handler(path=str(path))
    fill(ballast)
    handler.linnix_alert(alert(1))
    handler.linnix_flush()
    assert records_in(path) == []
    ballast.unlink()
    handler.linnix_flush()
    assert records_in(path) == [alert(1)]
    assert handler.linnix_health() == Health("ok")


def test_a_disk_without_room_for_a_new_file_is_no_reason_not_to_start(
    start_handler, make_batch, small_disk
):
    disk = small_disk("size=64k,nr_inodes=2")  # the folder, and one file
    (disk / "taken").touch()
    handler = start_handler(path=str(disk / "linnix.jsonl"))
    assert "No space left on device" in handler.linnix_health().reason
    with pytest.raises(RecordsLost) as caught:
        handler.linnix_handle(make_batch(3))
    assert (caught.value.count, caught.value.why) == (3, "disk_full")
    (disk / "taken").unlink()
    handler.linnix_handle(make_batch(3))
    assert len(records_in(disk / "linnix.jsonl")) == 3


# --- a limit of the kernel that cuts at any byte, and needs no privileges -----------------


def test_a_limit_on_the_size_of_files_counts_as_one(
    start_handler, make_batch, file_size_limit, tmp_path
):
    path = tmp_path / "linnix.jsonl"
    handler = start_handler(fsync="never")
    first, second = make_batch(10), make_batch(10)
    with file_size_limit(sum(map(len, first.lines())) + 10 + 700):
        handler.linnix_handle(first)
        with pytest.raises(RecordsLost, match="File too large") as caught:
            handler.linnix_handle(second)
    assert caught.value.why == "file_limit"
    assert len(records_in(path)) == 20 - caught.value.count
    assert 0 < caught.value.count < 10
    handler.linnix_handle(make_batch(1))
    assert handler.linnix_health() == Health("ok")


def test_waiting_notices_are_bounded_and_the_oldest_go(start_handler, file_size_limit, tmp_path):
    handler = start_handler(fsync="never")
    with file_size_limit(0):
        for number in range(MAX_WAITING + 5):
            handler.linnix_alert(alert(number))
    assert metric(handler, "jsonl_waiting_records") == MAX_WAITING
    assert metric(handler, "jsonl_lost_records") == 5
    assert "5 notices were lost" in handler.linnix_health().reason
    handler.linnix_flush()
    assert records_in(tmp_path / "linnix.jsonl") == [
        alert(number) for number in range(5, MAX_WAITING + 5)
    ]
    assert handler.linnix_health().status == "ok"
    assert "5 notices" in handler.linnix_health().reason


def test_notices_of_which_some_fit_are_not_written_twice(
    start_handler, make_batch, file_size_limit, tmp_path
):
    handler = start_handler(fsync="never")
    with file_size_limit(0):
        for number in range(10):
            handler.linnix_alert(alert(number))
    with file_size_limit(1000):
        assert handle(handler, make_batch(3)) == 3
    assert 0 < metric(handler, "jsonl_waiting_records") < 10
    handler.linnix_handle(make_batch(3))
    records = records_in(tmp_path / "linnix.jsonl")
    assert records[:-3] == [alert(number) for number in range(10)]
    assert [record.seq for record in records[-3:]] == [4, 5, 6]


def test_what_waits_is_written_by_a_stop(start_handler, file_size_limit, tmp_path):
    handler = start_handler(fsync="never")
    with file_size_limit(0):
        handler.linnix_alert(alert(1))
    handler.linnix_stop(deadline=time.monotonic() + 5)
    assert records_in(tmp_path / "linnix.jsonl") == [alert(1)]


def test_of_a_batch_that_rotation_splits_the_first_part_counts_as_written(
    start_handler, make_batch, small_disk
):
    disk = small_disk("size=3m,nr_inodes=2")  # the folder, and one file
    handler = start_handler(path=str(disk / "linnix.jsonl"), max_bytes=2**20)
    lost = handle(handler, make_batch(300, comm_chars=4000))
    (rotated,) = disk.iterdir()
    assert len(records_in(rotated)) == 300 - lost
    assert 0 < lost < 300


def test_notices_that_never_found_room_are_lost_when_the_run_ends(
    start_handler, file_size_limit, logged
):
    handler = start_handler(fsync="never")
    with file_size_limit(0):
        handler.linnix_alert(alert(1))
        handler.linnix_stop(deadline=time.monotonic() + 5)
    assert metric(handler, "jsonl_lost_records") == 1
    assert logged[-1] == ("WARNING", "1 notices were not written")


def test_a_failure_is_logged_once_and_so_is_its_end(
    start_handler, make_batch, file_size_limit, logged, tmp_path
):
    handler = start_handler(fsync="never")
    with file_size_limit(0):
        for _ in range(3):
            handle(handler, make_batch(1))
    for _ in range(3):
        handle(handler, make_batch(1))
    path = tmp_path / "linnix.jsonl"
    assert logged == [
        ("WARNING", f"cannot write to {path}: File too large"),
        ("INFO", f"writing to {path} again"),
    ]


def test_a_batch_that_must_be_on_disk_is_there_whole_or_not_at_all(
    start_handler, make_batch, file_size_limit, tmp_path
):
    handler = start_handler(fsync="batch")
    with file_size_limit(1000):
        assert handle(handler, make_batch(10)) == 10
    assert records_in(tmp_path / "linnix.jsonl") == []


def test_a_cut_line_that_cannot_be_taken_back_is_ended_before_the_next(
    start_handler, make_batch, file_size_limit, tmp_path, monkeypatch
):
    def refused(descriptor, size):
        """As the kernel answers for an append-only file (chattr +a, EPERM)."""
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", refused)
    handler = start_handler(fsync="never")
    batch = make_batch(3)
    with file_size_limit(len(batch.lines()[0]) + 1 + 100):
        assert handle(handler, batch) == 2
    handler.linnix_handle(make_batch(1))
    first, cut, last = (tmp_path / "linnix.jsonl").read_bytes().splitlines()
    assert [decode(first).seq, decode(last).seq] == [1, 4]
    assert cut == batch.lines()[1][:100]


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.integers(0, 60), min_size=1, max_size=8),
            st.one_of(st.none(), st.integers(0, 400)),
        ),
        max_size=12,
    ),
    max_bytes=st.sampled_from([0, 150, 400]),
)
def test_wherever_the_kernel_cuts_exactly_the_counted_lines_are_there(steps, max_bytes):
    # A fixture would be shared by all examples.
    from resource import RLIMIT_FSIZE, getrlimit, setrlimit

    before = getrlimit(RLIMIT_FSIZE)
    number, accepted = 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linnix.jsonl"
        file = RotatingFile(
            path,
            max_bytes=max_bytes,
            max_age_ns=0,
            max_total_bytes=0,
            fsync="never",
            now_ns=lambda: 1,
        )
        file.open()
        for pads, limit in steps:
            lines = []
            for pad in pads:
                number += 1
                lines.append(b'{"n":%d,"pad":"%s"}' % (number, b"x" * pad))
            setrlimit(RLIMIT_FSIZE, (before[0] if limit is None else limit, before[1]))
            try:
                file.append(lines)
                accepted += lines
            except NotWritten as failure:
                accepted += lines[: failure.written]
            finally:
                setrlimit(RLIMIT_FSIZE, before)
            names = sorted(Path(folder).iterdir(), key=lambda p: (p == path, p.name))
            assert b"".join(name.read_bytes() for name in names) == b"".join(
                line + b"\n" for line in accepted
            )
            assert file.bytes_written == sum(map(len, accepted)) + len(accepted)
        file.close()
