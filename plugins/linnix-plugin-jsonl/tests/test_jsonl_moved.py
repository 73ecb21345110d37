"""Somebody else, logrotate for one, moves, empties or deletes the file."""

import gzip
import os
import shutil
import subprocess

import pytest

from linnix_core import Health, RecordsLost, decode


def seqs(path):
    return [decode(line).seq for line in path.read_bytes().splitlines()]


def test_a_moved_file_is_left_alone_from_the_next_write_on(start_handler, make_batch, tmp_path):
    path, moved = tmp_path / "linnix.jsonl", tmp_path / "linnix.jsonl.1"
    handler = start_handler()
    handler.linnix_handle(make_batch(2))
    path.rename(moved)
    handler.linnix_handle(make_batch(2))
    assert [seqs(moved), seqs(path)] == [[1, 2], [3, 4]]


def test_a_moved_file_that_was_made_anew_is_taken_and_made_private(
    start_handler, make_batch, tmp_path
):
    path = tmp_path / "linnix.jsonl"
    handler = start_handler()
    path.rename(tmp_path / "linnix.jsonl.1")
    path.touch(mode=0o644)
    handler.linnix_handle(make_batch(2))
    assert seqs(path) == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_deleted_file_is_made_again(start_handler, make_batch, tmp_path, with_folder):
    folder = tmp_path / "log"
    handler = start_handler(path=str(folder / "linnix.jsonl"))
    handler.linnix_handle(make_batch(2))
    if with_folder:
        shutil.rmtree(folder)
    else:
        (folder / "linnix.jsonl").unlink()
    handler.linnix_handle(make_batch(2))
    assert seqs(folder / "linnix.jsonl") == [3, 4]


def test_a_file_copied_and_emptied_is_appended_to_from_its_beginning(
    start_handler, make_batch, tmp_path
):
    path = tmp_path / "linnix.jsonl"
    handler = start_handler()
    handler.linnix_handle(make_batch(2))
    with path.open("r+b") as file:
        file.truncate(0)
    handler.linnix_handle(make_batch(2))
    assert seqs(path) == [3, 4]


@pytest.mark.parametrize("how", ["create", "copytruncate", "nocreate compress"])
def test_logrotate_itself_loses_nothing(start_handler, make_batch, tmp_path, how):
    logrotate = shutil.which("logrotate", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not logrotate:
        pytest.skip("logrotate is not installed")
    folder = tmp_path / "log"
    handler = start_handler(path=str(folder / "linnix.jsonl"), max_bytes=0, max_total_bytes=0)
    rules = tmp_path / "rules"
    options = "\n".join(how.split())
    rules.write_text(f"{folder}/linnix.jsonl {{\nrotate 9\n{options}\n}}\n")
    rules.chmod(0o600)
    for _ in range(3):
        handler.linnix_handle(make_batch(2))
        state = f"--state={tmp_path / 'state'}"
        subprocess.run([logrotate, state, "--force", str(rules)], check=True)
    handler.linnix_handle(make_batch(2))
    lines = []
    for path in sorted(folder.iterdir(), reverse=True):
        data = path.read_bytes()
        lines += (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    assert sorted(decode(line).seq for line in lines) == list(range(1, 9))


def test_a_link_put_in_its_place_is_refused_until_it_is_gone(start_handler, make_batch, tmp_path):
    path, target = tmp_path / "linnix.jsonl", tmp_path / "target"
    target.write_bytes(b"precious")
    handler = start_handler()
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(RecordsLost, match="symbolic link") as caught:
        handler.linnix_handle(make_batch(3))
    assert (caught.value.count, caught.value.why) == (3, "no_file")
    assert "symbolic link" in handler.linnix_health().reason
    assert target.read_bytes() == b"precious"
    path.unlink()
    handler.linnix_handle(make_batch(1))
    assert handler.linnix_health() == Health("ok")
