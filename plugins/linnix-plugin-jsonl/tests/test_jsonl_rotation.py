"""When the file rotates, what the files are called, and which of them go."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Health, RecordsLost, decode
from linnix_plugin_jsonl.output import NotWritten
from linnix_plugin_jsonl.rotating import RotatingFile

MIB = 2**20
LONG = 4000  # so that 300 records pass a MiB
HOUR_NS = 3600 * 10**9


def rotated(folder):
    return sorted(path for path in folder.iterdir() if path.name != "linnix.jsonl")


def seqs(*paths):
    return [decode(line).seq for path in paths for line in path.read_bytes().splitlines()]


def metric(handler, name):
    return {metric.name: metric.value for metric in handler.linnix_metrics()}[name]


def test_the_file_rotates_before_it_passes_max_bytes(start_handler, make_batch, tmp_path, clock):
    handler = start_handler(path=str(tmp_path / "log" / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    for _ in range(3):
        handler.linnix_handle(make_batch(200, comm_chars=LONG))
    files = [*rotated(tmp_path / "log"), tmp_path / "log" / "linnix.jsonl"]
    assert seqs(*files) == list(range(1, 601))
    assert all(path.stat().st_size <= MIB for path in files)
    assert len(files) == 3  # 600 lines of 4.3 kB
    assert metric(handler, "jsonl_rotations") == 2


def test_with_max_bytes_0_it_never_rotates(start_handler, make_batch, tmp_path):
    handler = start_handler(
        path=str(tmp_path / "log" / "linnix.jsonl"), max_bytes=0, max_total_bytes=0
    )
    handler.linnix_handle(make_batch(600, comm_chars=LONG))
    assert rotated(tmp_path / "log") == []


def test_a_rotated_file_is_named_after_the_moment_in_utc_and_stays_private(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    clock.ns = 1_795_342_530_123_456_789
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    (path,) = rotated(folder)
    assert path.name == "linnix.jsonl.20261122T101530.123456Z"
    assert path.stat().st_mode & 0o777 == 0o600


def test_names_go_on_increasing_when_the_clock_is_set_back(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    for _ in range(4):
        handler.linnix_handle(make_batch(300, comm_chars=LONG))
        clock.ns -= HOUR_NS
    assert seqs(*rotated(folder), folder / "linnix.jsonl") == list(range(1, 1201))


def test_max_age_counts_from_the_first_record_of_the_file(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_age=3600.0, clock=clock)
    clock.ns += 5 * HOUR_NS  # an empty file has no age
    handler.linnix_handle(make_batch(1))
    clock.ns += HOUR_NS - 1
    handler.linnix_handle(make_batch(1))
    assert rotated(folder) == []
    clock.ns += 1
    handler.linnix_handle(make_batch(1))
    assert [seqs(path) for path in rotated(folder)] == [[1, 2]]
    assert seqs(folder / "linnix.jsonl") == [3]


def test_the_age_of_a_file_survives_a_restart(start_handler, make_batch, tmp_path, clock):
    folder = tmp_path / "log"
    folder.mkdir()
    began = {"ts_ns": clock.ns - HOUR_NS, "seq": 0}
    (folder / "linnix.jsonl").write_text(json.dumps(began) + "\n")
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_age=3600.0, clock=clock)
    handler.linnix_handle(make_batch(1))
    assert len(rotated(folder)) == 1


@pytest.mark.parametrize("first", [b"no json", b"[]", b'{"ts_ns":"1"}', b"[" * 100_000])
def test_a_file_that_does_not_tell_its_age_is_new(
    start_handler, make_batch, tmp_path, clock, first
):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "linnix.jsonl").write_bytes(first + b"\n")
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_age=3600.0, clock=clock)
    handler.linnix_handle(make_batch(1))
    assert rotated(folder) == []


def test_the_oldest_rotated_files_go_when_the_total_would_be_passed(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    handler = start_handler(
        path=str(folder / "linnix.jsonl"), max_bytes=MIB, max_total_bytes=3 * MIB, clock=clock
    )
    for _ in range(20):
        handler.linnix_handle(make_batch(100, comm_chars=LONG))
        clock.ns += HOUR_NS
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * MIB
    kept = seqs(*rotated(folder), folder / "linnix.jsonl")
    assert kept == list(range(kept[0], 2001))
    assert len(kept) >= 400  # two MiB, and what the current file holds


def test_with_max_total_bytes_0_nothing_is_deleted(start_handler, make_batch, tmp_path, clock):
    folder = tmp_path / "log"
    folder.mkdir()
    huge = folder / "linnix.jsonl.20200101T000000.000000Z"
    with huge.open("wb") as file:
        file.truncate(2**40)
    handler = start_handler(
        path=str(folder / "linnix.jsonl"), max_bytes=MIB, max_total_bytes=0, clock=clock
    )
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert huge.exists()


def test_files_and_folders_of_others_are_neither_counted_nor_deleted(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    folder.mkdir()
    stamp = "20200101T000000.000000Z"
    strangers = [
        folder / name
        for name in (
            f"linnix.jsonl.{stamp}.gz",
            f"linnix.jsonl.{stamp}\n",
            f"linnix_jsonl.{stamp}",
            f"other.{stamp}",
            f"my-linnix.jsonl.{stamp}",
            "linnix.jsonl.20201301T000000.000000Z",  # there is no month 13
            "linnix.jsonl.20200101T000000Z",
            "linnix.jsonl.\u0662\u0660200101T000000.000000Z",  # digits, but not these
            "linnix.jsonl.1",
        )
    ]
    for path in strangers:
        with path.open("wb") as file:
            file.truncate(2**40)
    directory = folder / "linnix.jsonl.20190101T000000.000000Z"
    directory.mkdir()
    link = folder / "linnix.jsonl.20190102T000000.000000Z"
    link.symlink_to(strangers[0])
    handler = start_handler(
        path=str(folder / "linnix.jsonl"), max_bytes=MIB, max_total_bytes=2 * MIB, clock=clock
    )
    for _ in range(4):
        handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert handler.linnix_health() == Health("ok")
    assert all(path.exists() for path in [*strangers, directory, link])


def test_a_rotated_file_of_another_user_is_not_deleted(
    start_handler, make_batch, tmp_path, clock, as_root
):
    folder = tmp_path / "log"
    folder.mkdir()
    theirs = folder / "linnix.jsonl.20200101T000000.000000Z"
    with theirs.open("wb") as file:
        file.truncate(2**40)
    as_root("chown", "65534", str(theirs))
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert theirs.exists()


def test_a_name_that_something_else_has_is_never_taken(start_handler, make_batch, tmp_path, clock):
    folder = tmp_path / "log"
    folder.mkdir()
    target = tmp_path / "target"
    taken = folder / "linnix.jsonl.20261122T101530.000000Z"
    taken.symlink_to(target)
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert taken.is_symlink()
    assert rotated(folder)[1].name == "linnix.jsonl.20261122T101530.000001Z"


# --- folders in which nothing can be renamed or deleted -----------------------------------


def test_where_the_file_cannot_be_renamed_it_grows_up_to_the_total(
    start_handler, make_batch, ordinary_folder, clock
):
    path = ordinary_folder / "linnix.jsonl"
    handler = start_handler(
        path=str(path), max_bytes=MIB, max_total_bytes=2 * MIB, clock=clock, fsync="never"
    )
    ordinary_folder.chmod(0o500)
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert handler.linnix_health().status == "degraded"
    assert "cannot rotate" in handler.linnix_health().reason
    assert seqs(path) == list(range(1, 301))

    with pytest.raises(RecordsLost, match="max_total_bytes") as caught:
        handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert caught.value.why == "size_limit"
    assert path.stat().st_size <= 2 * MIB

    ordinary_folder.chmod(0o700)
    handler.linnix_handle(make_batch(1))
    assert handler.linnix_health() == Health("ok")
    assert seqs(path) == [601]


def test_where_old_files_cannot_be_deleted_the_bound_holds_all_the_same(
    start_handler, make_batch, ordinary_folder, clock
):
    path = ordinary_folder / "linnix.jsonl"
    old = ordinary_folder / "linnix.jsonl.20200101T000000.000000Z"
    with old.open("wb") as file:
        file.truncate(2 * MIB)
    handler = start_handler(path=str(path), max_bytes=MIB, max_total_bytes=2 * MIB, clock=clock)
    ordinary_folder.chmod(0o500)
    with pytest.raises(RecordsLost) as caught:
        handler.linnix_handle(make_batch(3))
    assert (caught.value.count, caught.value.why) == (3, "size_limit")
    assert f"cannot delete {old}" in handler.linnix_health().reason
    ordinary_folder.chmod(0o700)
    handler.linnix_handle(make_batch(3))
    assert handler.linnix_health() == Health("ok")
    assert not old.exists()


def test_past_the_last_name_that_can_be_given_the_file_stays(
    start_handler, make_batch, tmp_path, clock
):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "linnix.jsonl.99991231T235959.999999Z").touch()
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=MIB, clock=clock)
    handler.linnix_handle(make_batch(300, comm_chars=LONG))
    assert "cannot rotate" in handler.linnix_health().reason
    assert len(seqs(folder / "linnix.jsonl")) == 300


# --- any sequence -------------------------------------------------------------------------

_steps = st.lists(
    st.one_of(
        st.lists(st.integers(0, 150), max_size=12).map(lambda pads: ("write", pads)),
        st.integers(-50, 200).map(lambda seconds: ("wait", seconds)),
        st.just(("reopen", None)),
    ),
    max_size=25,
)


def _file(path, max_bytes, max_total_bytes, max_age, clock):
    return RotatingFile(
        path,
        max_bytes=max_bytes,
        max_age_ns=max_age * 10**9,
        max_total_bytes=max_total_bytes,
        fsync="never",
        now_ns=lambda: clock[0],
    )


def append(file, lines):
    try:
        file.append(lines)
    except NotWritten as failure:
        return failure.written
    return len(lines)


@settings(max_examples=150, deadline=None)
@given(
    steps=_steps,
    max_bytes=st.sampled_from([0, 60, 200, 500]),
    files=st.integers(2, 6),
    bounded=st.booleans(),
    max_age=st.sampled_from([0, 100]),
)
def test_lines_stay_whole_and_in_order_and_within_the_bound(
    steps, max_bytes, files, bounded, max_age
):
    max_total_bytes = files * max_bytes if bounded else 0
    clock, number, accepted = [1_795_342_530 * 10**9], 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linnix.jsonl"
        file = _file(path, max_bytes, max_total_bytes, max_age, clock)
        file.open()
        for step, value in steps:
            if step == "wait":
                clock[0] += value * 10**9
            elif step == "reopen":
                file.close()
                file = _file(path, max_bytes, max_total_bytes, max_age, clock)
                file.open()
            else:
                lines = []
                for pad in value:
                    number += 1
                    lines.append(b'{"ts_ns":%d,"n":%d,"pad":"%s"}' % (clock[0], number, b"x" * pad))
                written = append(file, lines)
                accepted += lines[:written]
                if written < len(lines):
                    # Only a line that the bound has no room for at all is refused.
                    assert len(lines[written]) + 1 > max_total_bytes > 0

            names = sorted(Path(folder).iterdir(), key=lambda p: (p == path, p.name))
            contents = [name.read_bytes() for name in names]
            for name, content in zip(names, contents, strict=True):
                assert re.fullmatch(r"linnix\.jsonl(\.\d{8}T\d{6}\.\d{6}Z)?", name.name)
                assert content.endswith(b"\n") or (content == b"" and name == path)
                if max_bytes:
                    assert len(content) <= max_bytes or content.count(b"\n") == 1
            kept = b"".join(contents).splitlines()
            assert kept == accepted[len(accepted) - len(kept) :]
            if max_total_bytes:
                assert sum(map(len, contents)) <= max_total_bytes
            else:
                assert kept == accepted
        file.close()
