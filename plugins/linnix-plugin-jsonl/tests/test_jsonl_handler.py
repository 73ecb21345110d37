"""Which records become lines, and what the component says of itself."""

import os
import threading
import time

import pytest

from linnix_core import (
    Alert,
    Batch,
    CgroupSample,
    Health,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    ProcessSample,
    RecordsLost,
    SystemSample,
    decode,
)
from linnix_plugin_jsonl import JsonlConfig

MEASURED = [
    ProcessEvent("exec", pid=7, start_ns=10**7, comm="line\nbreak", args=("a\r\nb", "c")),
    ProcessSample(pid=7, start_ns=10**7, interval_ns=10**9),
    CgroupSample(cgroup="/user.slice", interval_ns=10**9),
    SystemSample(interval_ns=10**9),
    Loss(component="handlers.x", why="queue_full", lost=2, lost_total=2, window_ns=10**10),
]
ALERT = Alert("fork_rate", "high", "many\nforks")
INCIDENT = Incident("f" * 16, "high", "a fork storm", class_="fork_storm")
INSIGHT = Insight("fork_storm", 0.9, "make", "make forks", ())


def records_in(path):
    return [decode(line) for line in path.read_bytes().splitlines()]


def write_one_of_each(handler):
    handler.linnix_handle(Batch(MEASURED))
    handler.linnix_alert(ALERT)
    handler.linnix_incident(INCIDENT)
    handler.linnix_insight(INSIGHT)


def test_every_record_is_one_line_that_decodes_to_the_record(start_handler, tmp_path):
    write_one_of_each(start_handler())
    data = (tmp_path / "linnix.jsonl").read_bytes()
    assert data.count(b"\n") == 8
    assert data.endswith(b"\n")
    assert records_in(tmp_path / "linnix.jsonl") == [*MEASURED, ALERT, INCIDENT, INSIGHT]


def test_a_second_run_goes_on_where_the_first_ended(start_handler, make_batch, tmp_path):
    for _ in range(2):
        handler = start_handler()
        handler.linnix_handle(make_batch(3))
        handler.linnix_stop(deadline=time.monotonic() + 5)
    assert [record.seq for record in records_in(tmp_path / "linnix.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "types", [("loss",), ("event", "alert"), ("incident",), ("insight", "sample")]
)
def test_types_chooses_what_is_written(start_handler, tmp_path, types):
    write_one_of_each(start_handler(types=types))
    assert {record.type for record in records_in(tmp_path / "linnix.jsonl")} == set(types)


def test_a_batch_without_a_chosen_type_is_not_even_encoded(start_handler, tmp_path):
    class Unencoded(Batch):
        def lines(self):
            raise AssertionError("encoded for nothing")

    start_handler(types=("alert",)).linnix_handle(Unencoded(MEASURED))
    assert records_in(tmp_path / "linnix.jsonl") == []


def test_a_batch_is_written_by_one_system_call(start_handler, make_batch, monkeypatch):
    handler = start_handler()
    handler.linnix_handle(make_batch(1))
    write, sizes = os.write, []

    def counting(descriptor, data):
        sizes.append(write(descriptor, data))
        return sizes[-1]

    monkeypatch.setattr(os, "write", counting)
    batch = make_batch(256)
    handler.linnix_handle(batch)
    assert sizes == [sum(map(len, batch.lines())) + 256]


def test_a_path_is_relative_to_where_the_run_began(make_handler, make_batch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = make_handler(path="here.jsonl")
    monkeypatch.chdir("/")
    handler.linnix_start()
    handler.linnix_handle(make_batch(1))
    assert len(records_in(tmp_path / "here.jsonl")) == 1


def test_a_path_may_begin_with_the_home_folder(start_handler, make_batch, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    start_handler(path="~/at-home.jsonl").linnix_handle(make_batch(1))
    assert len(records_in(tmp_path / "at-home.jsonl")) == 1


def test_without_a_path_it_is_linnix_jsonl_in_the_working_directory():
    assert JsonlConfig().path == "linnix.jsonl"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": ""}, "path must name a file"),
        ({"path": "logs/"}, "path must name a file"),
        ({"path": "a\0b"}, "path must name a file"),
        ({"path": "~nobody-has-this-name/x"}, "path begins with a home folder"),
        ({"max_bytes": 100}, "max_bytes must be 0 or at least 1MiB, got 100"),
        ({"max_bytes": 0}, "max_total_bytes cannot bound a file that never rotates"),
        ({"max_bytes": 2**30}, "max_total_bytes must be 0 or at least twice max_bytes"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_key_first(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        JsonlConfig(**options)
    assert str(caught.value).split()[0] in ("path", "max_bytes", "max_total_bytes")


def test_stopping_twice_or_without_a_start_is_no_error(make_handler, start_handler, tmp_path):
    make_handler().linnix_stop(deadline=time.monotonic() + 5)
    handler = start_handler()
    for _ in range(2):
        handler.linnix_stop(deadline=time.monotonic() + 5)


def test_a_stop_does_not_wait_for_a_write_that_hangs(
    start_handler, make_batch, tmp_path, monkeypatch
):
    handler = start_handler()
    write, hanging, go_on = os.write, threading.Event(), threading.Event()

    def hung(descriptor, data):
        """As a disk that does not answer."""
        hanging.set()
        go_on.wait()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", hung)
    writer = threading.Thread(target=handler.linnix_handle, args=(make_batch(3),))
    writer.start()
    hanging.wait()
    handler.linnix_stop(deadline=time.monotonic())
    go_on.set()
    writer.join()
    assert len(records_in(tmp_path / "linnix.jsonl")) == 3


def test_after_a_stop_nothing_is_opened_again(start_handler, make_batch, tmp_path):
    handler = start_handler()
    handler.linnix_stop(deadline=time.monotonic() + 5)
    (tmp_path / "linnix.jsonl").unlink()
    with pytest.raises(RecordsLost) as caught:
        handler.linnix_handle(make_batch(3))
    assert (caught.value.count, caught.value.why) == (3, "stopped")
    assert not (tmp_path / "linnix.jsonl").exists()


def test_a_healthy_handler_says_ok_and_counts_what_it_wrote(start_handler, make_batch, tmp_path):
    handler = start_handler()
    handler.linnix_handle(make_batch(5))
    assert handler.linnix_health() == Health("ok")
    assert {metric.name: metric.value for metric in handler.linnix_metrics()} == {
        "jsonl_written_bytes": (tmp_path / "linnix.jsonl").stat().st_size,
        "jsonl_rotations": 0,
        "jsonl_lost_records": 0,
        "jsonl_waiting_records": 0,
    }


# --- fsync: the calls are counted, because only a power cut shows their effect ----------


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """How many times the contents of the file were forced to disk."""
    fsync, calls = os.fsync, []

    def counting(descriptor):
        if os.path.samestat(os.fstat(descriptor), (tmp_path / "linnix.jsonl").stat()):
            calls.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    return calls


@pytest.mark.parametrize(
    ("policy", "handled", "flushed", "flushed_again", "stopped"),
    [("never", 0, 0, 0, 0), ("flush", 0, 1, 1, 2), ("batch", 2, 2, 2, 3)],
)
def test_fsync_says_when_lines_are_forced_to_disk(
    start_handler, make_batch, synced, policy, handled, flushed, flushed_again, stopped
):
    handler = start_handler(fsync=policy)
    handler.linnix_handle(make_batch())
    handler.linnix_handle(make_batch())
    assert len(synced) == handled
    handler.linnix_flush()
    assert len(synced) == flushed
    handler.linnix_flush()
    assert len(synced) == flushed_again
    handler.linnix_alert(ALERT)
    handler.linnix_stop(deadline=time.monotonic() + 5)
    assert len(synced) == stopped


@pytest.mark.parametrize(("policy", "count"), [("never", 0), ("flush", 2), ("batch", 2)])
def test_fsync_says_whether_the_names_of_files_are_forced_to_disk(
    start_handler, make_batch, monkeypatch, tmp_path, policy, count
):
    fsync, folders = os.fsync, []

    def counting(descriptor):
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            folders.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    handler = start_handler(fsync=policy, max_bytes=2**20)
    handler.linnix_handle(make_batch(300, comm_chars=4000))  # made, and rotated once
    assert len(folders) == count


def failing_fsync(descriptor):
    """As the kernel reports a disk that did not take what was written (fsync(2), EIO)."""
    raise OSError(5, "Input/output error")


def test_a_batch_that_cannot_be_forced_to_disk_is_lost_and_taken_back(
    start_handler, make_batch, monkeypatch, tmp_path
):
    handler = start_handler(fsync="batch")
    handler.linnix_handle(make_batch(2))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing_fsync)
        with pytest.raises(RecordsLost, match="Input/output error") as caught:
            handler.linnix_handle(make_batch(3))
    assert (caught.value.count, caught.value.why) == (3, "io_error")
    handler.linnix_handle(make_batch(1))
    assert [record.seq for record in records_in(tmp_path / "linnix.jsonl")] == [1, 2, 6]


def test_a_flush_that_cannot_force_to_disk_degrades_until_one_can(
    start_handler, make_batch, monkeypatch
):
    handler = start_handler()
    handler.linnix_handle(make_batch())
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing_fsync)
        handler.linnix_flush()
    assert handler.linnix_health().status == "degraded"
    assert "to disk: Input/output error" in handler.linnix_health().reason
    handler.linnix_handle(make_batch())
    handler.linnix_flush()
    assert handler.linnix_health() == Health("ok")
