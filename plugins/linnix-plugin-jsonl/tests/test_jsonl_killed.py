"""A writer killed at any moment leaves whole lines, and the next one goes on from there."""

import json
import random
import subprocess
import sys

import pytest

from linnix_core import decode

# Writes numbered lines in batches of about a MiB, and says after each how far it got.
WRITER = """
import sys
from pathlib import Path
from linnix_plugin_jsonl.rotating import RotatingFile

file = RotatingFile(Path(sys.argv[1]), max_bytes=3 * 2**20, max_age_ns=0, max_total_bytes=0,
                    fsync="never", now_ns=lambda: 1795342530 * 10**9)
file.open()
number = int(sys.argv[2])
while True:
    file.append([b'{"n":%d,"pad":"%s"}' % (n, b"x" * 4000) for n in range(number, number + 256)])
    number += 256
    print(number, flush=True)
"""


def lines_of(folder):
    names = sorted(folder.iterdir(), key=lambda p: (p.name == "linnix.jsonl", p.name))
    return [line for name in names for line in name.read_bytes().split(b"\n")[:-1]]


def test_killed_again_and_again_it_leaves_every_acknowledged_line_whole(tmp_path):
    path = tmp_path / "linnix.jsonl"
    count = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(count)], stdout=subprocess.PIPE
        ) as writer:
            for _ in range(random.randint(1, 6)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            said = writer.stdout.read().split()
        acknowledged = int(said[-1]) if said else acknowledged

        files = sorted(tmp_path.iterdir(), key=lambda p: (p.name == "linnix.jsonl", p.name))
        assert all(name.read_bytes().endswith(b"\n") for name in files if name != path)
        numbers = [json.loads(line)["n"] for line in lines_of(tmp_path)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= acknowledged
        count = len(numbers)


@pytest.mark.parametrize("cut", [1, 2, 50, 200])
def test_a_record_that_breaks_off_is_removed_before_the_next_is_written(
    start_handler, make_batch, tmp_path, cut
):
    path = tmp_path / "linnix.jsonl"
    batch = make_batch(2)
    path.write_bytes(batch.lines()[0] + b"\n" + batch.lines()[1][: cut + 1])
    start_handler().linnix_handle(make_batch(1))
    assert [decode(line).seq for line in path.read_bytes().splitlines()] == [1, 3]


def test_a_first_record_that_breaks_off_is_removed_too(start_handler, make_batch, tmp_path):
    path = tmp_path / "linnix.jsonl"
    path.write_bytes(make_batch(1).lines()[0][:40])
    start_handler().linnix_handle(make_batch(1))
    assert [decode(line).seq for line in path.read_bytes().splitlines()] == [2]


def test_a_whole_record_without_its_line_end_is_kept(start_handler, make_batch, tmp_path):
    path = tmp_path / "linnix.jsonl"
    path.write_bytes(make_batch(1).lines()[0])
    start_handler().linnix_handle(make_batch(1))
    assert [decode(line).seq for line in path.read_bytes().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [b"notes of somebody", b"{", b"\0" * 100, b'x{"', b'{"a":1}' + b"y" * 2**20, b'{"' * 2**20],
    ids=["text", "brace", "zeros", "middle", "long", "longer than any record"],
)
def test_what_is_no_record_is_never_removed(start_handler, make_batch, tmp_path, text):
    path = tmp_path / "linnix.jsonl"
    path.write_bytes(text)
    start_handler().linnix_handle(make_batch(1))
    before, after = path.read_bytes().splitlines()
    assert before == text
    assert decode(after).seq == 1


def test_a_whole_file_is_not_touched_by_opening_it(start_handler, make_batch, tmp_path):
    path = tmp_path / "linnix.jsonl"
    line = make_batch(1).lines()[0] + b"\n"
    path.write_bytes(line)
    start_handler().linnix_flush()
    assert path.read_bytes() == line
