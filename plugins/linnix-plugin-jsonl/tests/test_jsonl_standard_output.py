"""``jsonl:-``: lines on standard output, whoever reads them."""

import fcntl
import json
import os
import pty
import subprocess
import sys

import pytest

from linnix_core import decode
from linnix_plugin_jsonl.output import NotWritten
from linnix_plugin_jsonl.standard_output import StandardOutput

# A run in small: start, so many batches, stop; prints how it ended to standard error.
PROGRAM = """
import logging, sys, time
from pathlib import Path
from linnix_core import Batch, Context, PluginUnavailable, ProcessEvent, ProcessView, RecordsLost
from linnix_plugin_jsonl import JsonlConfig, JsonlHandler

batches, comm = int(sys.argv[1]), sys.argv[2].encode().decode("unicode_escape")
context = Context(component="handlers.jsonl", logger=logging.getLogger("test"),
                  processes=ProcessView(), incidents=None, data_dir=Path("unused"))
handler = JsonlHandler(JsonlConfig(path="-"), context)
seq = lost = 0
try:
    handler.linnix_start()
    for _ in range(batches):
        events = [ProcessEvent("fork", 7, 10**7, comm=comm, seq=seq + i) for i in range(256)]
        seq += 256
        try:
            handler.linnix_handle(Batch(events))
        except RecordsLost as error:
            lost += error.count
            said = error.why
    if lost:
        print("lost", lost, said, file=sys.stderr)
except PluginUnavailable as gone:
    print("unavailable:", gone, file=sys.stderr)
handler.linnix_flush()
handler.linnix_stop(deadline=time.monotonic() + 5)
print(handler.linnix_health().status, file=sys.stderr)
"""


def command(batches, comm="make"):
    return [sys.executable, "-W", "error", "-c", PROGRAM, str(batches), comm]


def test_lines_arrive_whole_and_in_order():
    done = subprocess.run(command(20), capture_output=True)
    assert [decode(line).seq for line in done.stdout.splitlines()] == list(range(20 * 256))
    assert done.stdout.endswith(b"\n")
    assert (done.returncode, done.stderr) == (0, b"ok\n")


def test_a_reader_that_goes_away_is_no_crash():
    with subprocess.Popen(command(2000), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        lines = [writer.stdout.readline() for _ in range(3)]
        writer.stdout.close()
        said = writer.stderr.read().decode()
    assert [decode(line).seq for line in lines] == [0, 1, 2]
    assert said == "unavailable: nobody reads standard output any more\ndegraded\n"
    assert writer.returncode == 0


def test_a_slow_reader_of_a_pipe_that_never_waits_loses_nothing():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(command(4), stdout=writing, stderr=subprocess.PIPE) as writer:
        os.close(writing)
        with open(reading, "rb") as pipe:
            data = pipe.read()
        assert writer.stderr.read() == b"ok\n"
    assert [decode(line).seq for line in data.splitlines()] == list(range(4 * 256))


def test_a_closed_standard_output_is_said_clearly():
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command(1)], capture_output=True)
    assert b"unavailable: standard output is closed" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_redirection_to_a_full_disk_counts_and_ends_the_cut_line(small_disk):
    disk = small_disk("size=64k")
    (disk / "ballast").write_bytes(b"\0" * 20_000)
    with (disk / "out").open("wb") as out:
        done = subprocess.run(command(3), stdout=out, stderr=subprocess.PIPE)
    lines = (disk / "out").read_bytes().split(b"\n")
    whole = [decode(line) for line in lines[:-1]]
    assert [record.seq for record in whole] == list(range(len(whole)))
    lost = 3 * 256 - len(whole)
    assert done.stderr == b"cannot write to standard output: No space left on device\n" + (
        b"lost %d disk_full\ndegraded\n" % lost
    )


def test_a_line_that_broke_off_is_ended_once_there_is_room_again(
    tmp_path, file_size_limit, monkeypatch
):
    path = tmp_path / "out"
    with path.open("wb") as out:
        monkeypatch.setattr("linnix_plugin_jsonl.standard_output._DESCRIPTOR", out.fileno())
        output = StandardOutput()
        output.open()
        with file_size_limit(15):
            for lines, written in (([b"1" * 9, b"2" * 9], 1), ([b"3" * 9], 0)):
                with pytest.raises(NotWritten) as caught:
                    output.append(lines)
                assert caught.value.written == written
        with file_size_limit(16 + 5), pytest.raises(NotWritten) as caught:
            output.append([b"4" * 9])
        assert caught.value.written == 0
        output.append([b"5" * 9])
    assert path.read_bytes().split() == [b"1" * 9, b"2" * 5, b"4" * 5, b"5" * 9]


def test_on_a_terminal_nothing_a_process_chose_controls_it():
    hostile = "\u202e\u009b2J\x7f\x1b[2Jé\U000e0041"
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(1, hostile.encode("unicode_escape").decode()),
        stdout=slave,
        stderr=subprocess.PIPE,
    ) as writer:
        os.close(slave)
        shown = b""
        while shown.count(b"\n") < 256:
            shown += os.read(master, 65536)
        assert writer.stderr.read() == b"ok\n"
    os.close(master)
    assert not set(shown) - set(range(0x20, 0x7F)) - set(b"\r\n")
    assert {json.loads(line)["comm"] for line in shown.splitlines()} == {hostile}


@pytest.mark.parametrize("name", ["-", "./-"])
def test_a_file_called_dash_has_to_be_named_with_its_folder(
    make_handler, make_batch, tmp_path, monkeypatch, name, capfdbinary
):
    monkeypatch.chdir(tmp_path)
    handler = make_handler(path=name)
    handler.linnix_start()
    handler.linnix_handle(make_batch(1))
    assert (tmp_path / "-").exists() == (name == "./-")
    assert bool(capfdbinary.readouterr().out) == (name == "-")
