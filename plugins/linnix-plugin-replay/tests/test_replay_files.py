"""Which files are played, in which order, and how they are read."""

import bz2
import gzip
import lzma
import os
import threading

import pytest

from linnix_core import PluginUnavailable, decode
from linnix_plugin_jsonl import JsonlHandler

HOUR = "20261122T%02d0000.000000Z"


def open_files():
    return sorted(os.listdir("/dev/fd"))


def seqs(sink):
    return [record.seq for record in sink.records]


@pytest.fixture
def generations(write, event):
    """``generations("a", "b", …)``: files of two records each; the first is the oldest."""

    def make(*names):
        for name in names:
            pack = gzip.compress if name.endswith(".gz") else bytes
            write(name, [event(), event()], pack=pack)

    return make


def test_rotated_files_come_first_the_oldest_before_the_others(generations, play, tmp_path):
    generations(f"x.jsonl.{HOUR % 8}", f"x.jsonl.{HOUR % 9}", f"x.jsonl.{HOUR % 10}", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_compressed_rotated_files_stand_where_they_would_otherwise(generations, play, tmp_path):
    generations(f"x.jsonl.{HOUR % 8}.gz", f"x.jsonl.{HOUR % 9}", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4, 5, 6]


def test_numbers_of_logrotate_grow_with_age(generations, play, tmp_path):
    generations("x.jsonl.10.gz", "x.jsonl.2.gz", "x.jsonl.1", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_dates_of_logrotate_are_in_their_order(generations, play, tmp_path):
    generations("x.jsonl-20261120.gz", "x.jsonl-20261121", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4, 5, 6]


def test_what_the_handler_rotates_is_played_as_it_came(
    linnix_runtime, linnix_records, tmp_path, play
):
    records = linnix_records(6000)
    agent = linnix_runtime(
        handlers={"jsonl": JsonlHandler},
        options={"handlers.jsonl": {"path": tmp_path / "x.jsonl", "max_bytes": "1MiB"}},
        records=records,
    )
    agent.wait_idle(60)
    agent.stop()
    oldest, *others = sorted(tmp_path.glob("x.jsonl.*"))
    assert others
    oldest.with_name(f"{oldest.name}.gz").write_bytes(gzip.compress(oldest.read_bytes()))
    oldest.unlink()
    played = play(tmp_path / "x.jsonl").records
    assert [record.seq for record in played] == list(range(1, 6001))
    assert [record.ts_ns for record in played] == [record.ts_ns for record in records]


def test_a_file_that_is_just_being_compressed_is_played_once(generations, play, tmp_path):
    generations("x.jsonl.2", "x.jsonl.2.gz", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 5, 6]


def test_files_of_other_names_are_not_played(generations, play, tmp_path):
    generations("x.jsonl", "x.jsonl.bak", "x.jsonl.1.orig", "x.jsonl2", "ax.jsonl.1", "x.json.1")
    (tmp_path / "x.jsonl.3").mkdir()
    (tmp_path / "x.jsonl.4").symlink_to(tmp_path / "x.jsonl.bak")
    os.mkfifo(tmp_path / "x.jsonl.5")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2]


def test_the_rotated_ones_can_be_left_out(generations, play, tmp_path):
    generations("x.jsonl.1", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl", rotated=False)) == [3, 4]


def test_a_rotated_file_can_be_played_alone(generations, play, tmp_path):
    generations("x.jsonl.2", "x.jsonl.1", "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl.2")) == [1, 2]


def test_rotated_files_are_played_when_there_is_no_new_one_yet(generations, play, tmp_path):
    generations("x.jsonl.2", "x.jsonl.1")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4]


def test_several_files_are_played_as_they_are_listed(generations, play, tmp_path):
    generations("b.jsonl.1", "b.jsonl", "a.jsonl")
    assert seqs(play((tmp_path / "b.jsonl", tmp_path / "a.jsonl"))) == [1, 2, 3, 4, 5, 6]


# --- what others do to files meanwhile ----------------------------------------------------


def started(make_collector, path, **options):
    collector = make_collector(path, **options)
    collector.linnix_start()
    return collector


def rest_of(collector):
    from linnix_core.testing.trial import Sink

    sink = Sink()
    collector.linnix_collect(sink, threading.Event())
    return sink


def test_what_is_written_after_the_start_is_not_played(
    generations, make_collector, tmp_path, lines_of, event
):
    generations("x.jsonl")
    collector = started(make_collector, tmp_path / "x.jsonl")
    with (tmp_path / "x.jsonl").open("ab") as file:
        file.write(lines_of([event()]))
    assert seqs(rest_of(collector)) == [1, 2]


def test_a_file_that_is_rotated_while_it_is_looked_for_is_played_once(generations, play, tmp_path):
    generations("x.jsonl.2", "x.jsonl")
    # What a rotation looks like between opening the file and listing the others.
    (tmp_path / "x.jsonl.1").hardlink_to(tmp_path / "x.jsonl")
    assert seqs(play(tmp_path / "x.jsonl")) == [1, 2, 3, 4]


def test_a_file_that_is_rotated_after_the_start_is_played_all_the_same(
    generations, make_collector, tmp_path
):
    generations("x.jsonl.1", "x.jsonl")
    collector = started(make_collector, tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").rename(tmp_path / f"x.jsonl.{HOUR % 8}")
    generations("x.jsonl")
    assert seqs(rest_of(collector)) == [1, 2, 3, 4]


def test_files_that_are_deleted_after_the_start_are_played_all_the_same(
    generations, make_collector, tmp_path
):
    generations("x.jsonl.1", "x.jsonl")
    collector = started(make_collector, tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl.1").unlink()
    (tmp_path / "x.jsonl").unlink()
    assert seqs(rest_of(collector)) == [1, 2, 3, 4]


def test_a_second_call_has_nothing_more_to_play(generations, make_collector, tmp_path):
    generations("x.jsonl")
    collector = started(make_collector, tmp_path / "x.jsonl")
    assert seqs(rest_of(collector)) == [1, 2]
    assert seqs(rest_of(collector)) == []


# --- compression --------------------------------------------------------------------------


def test_gzip_is_known_by_its_contents(write, event, play):
    assert seqs(play(write("x.data", [event(), event()], pack=gzip.compress))) == [1, 2]


def test_a_gzip_file_of_several_members_is_played_whole(tmp_path, lines_of, event, play):
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(lines_of([event()])) + gzip.compress(lines_of([event()])))
    assert seqs(play(file)) == [1, 2]


@pytest.mark.parametrize("damage", ["cut", "turned"])
def test_of_a_damaged_gzip_file_comes_what_can_be_read(
    damage, tmp_path, linnix_records, lines_of, event, write, play
):
    whole = gzip.compress(lines_of(linnix_records(3000)))
    half = len(whole) // 2
    file = tmp_path / "x.jsonl.1"
    file.write_bytes(whole[:half] if damage == "cut" else whole[:-8] + b"\0" * 8)
    write("x.jsonl", [event(pid=77, start_ns=7)])
    sink = play(tmp_path / "x.jsonl")
    assert 100 < len(sink.records) <= 3001
    assert (sink.records[-1].pid, sink.records[-1].start_ns) == (77, 7)
    ((why, count),) = sink.losses
    assert why == "unreadable"
    assert count >= 1
    assert "x.jsonl.1 " in sink.limits[0]


@pytest.mark.parametrize(
    ("pack", "program"), [(lzma.compress, "xz"), (bz2.compress, "bzip2")], ids=["xz", "bzip2"]
)
def test_other_compressions_are_refused_with_the_next_step(
    pack, program, write, event, make_collector
):
    write(f"x.jsonl.1.{program[:3]}".removesuffix("ip"), [event()], pack=pack)
    packed = write("x.jsonl.1.xz", [event()], pack=pack)
    plain = write("x.jsonl", [event()])
    before = open_files()
    for path in (packed, plain):
        with pytest.raises(PluginUnavailable, match=f"compressed with {program}") as refused:
            make_collector(path).linnix_start()
        assert refused.value.hint.startswith(f"{program} -dc ")
    assert open_files() == before


# --- what cannot be played ----------------------------------------------------------------


def test_a_file_that_is_not_there_makes_it_unavailable(make_collector, tmp_path):
    with pytest.raises(PluginUnavailable, match="there is no such file") as missing:
        make_collector(tmp_path / "x.jsonl").linnix_start()
    assert "--handler jsonl:" in missing.value.hint


def test_a_folder_that_is_not_there_makes_it_unavailable(make_collector, tmp_path):
    with pytest.raises(PluginUnavailable, match="there is no such file"):
        make_collector(tmp_path / "no" / "x.jsonl").linnix_start()


def test_a_folder_is_no_recording(make_collector, tmp_path):
    with pytest.raises(PluginUnavailable, match="is a directory"):
        make_collector(tmp_path).linnix_start()


def test_what_the_system_refuses_is_said(make_collector, tmp_path):
    (tmp_path / "x.jsonl").symlink_to(tmp_path / "x.jsonl")
    with pytest.raises(PluginUnavailable, match=r"x\.jsonl cannot be read: "):
        make_collector(tmp_path / "x.jsonl").linnix_start()


def test_hostile_names_of_files_are_shown_harmless(write, event, make_collector, tmp_path):
    name = "x\x1b[2J.jsonl"
    with pytest.raises(PluginUnavailable) as missing:
        make_collector(tmp_path / name).linnix_start()
    assert "\x1b" not in str(missing.value)


# --- pipes --------------------------------------------------------------------------------


def test_records_come_out_of_a_pipe_as_they_come_in(tmp_path, playing, lines_of, event):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sink, _, ended = playing(pipe)
    with pipe.open("wb", buffering=0) as writer:
        writer.write(lines_of([event(), event()]))
        assert sink.first.wait(60)
        assert seqs(sink) == [1, 2]
        writer.write(lines_of([event()]))
    assert ended()
    assert seqs(sink) == [1, 2, 3]
    assert sink.losses == []


def test_a_pipe_may_be_compressed(tmp_path, playing, lines_of, event):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sink, _, ended = playing(pipe)
    with pipe.open("wb", buffering=0) as writer:
        writer.write(gzip.compress(lines_of([event(), event()])))
    assert ended()
    assert seqs(sink) == [1, 2]


@pytest.mark.parametrize(
    "begun",
    [b"", b'{"type":', gzip.compress(b"x" * 1000)[:20]],
    ids=["nothing", "text", "compressed"],
)
def test_a_stop_ends_the_wait_for_a_silent_pipe(begun, tmp_path, playing):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sink, stop, ended = playing(pipe)
    with pipe.open("wb", buffering=0) as writer:
        writer.write(begun)
        stop.set()
        assert ended()
    assert (sink.records, sink.losses) == ([], [])


def test_a_round_trip_keeps_every_line(write, linnix_records, play, lines_of):
    records = linnix_records(2000)
    file = write("x.jsonl", records)
    assert lines_of(play(file).records) == file.read_bytes()
    assert list(map(decode, file.read_bytes().splitlines())) == records
