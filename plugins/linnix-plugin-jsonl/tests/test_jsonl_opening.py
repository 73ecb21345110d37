"""Which files are written to, and which are refused."""

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from linnix_core import Health, PluginUnavailable, RecordsLost


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_files_are_private_and_so_are_the_folders_made_for_them(start_handler, tmp_path):
    path = tmp_path / "a" / "b" / "linnix.jsonl"
    start_handler(path=str(path))
    assert [mode(path), mode(path.parent), mode(path.parent.parent)] == [0o600, 0o700, 0o700]


def test_a_wider_mode_is_tightened_and_the_contents_stay(start_handler, make_batch, tmp_path):
    path = tmp_path / "linnix.jsonl"
    path.write_bytes(b'{"seq":0}\n')
    path.chmod(0o644)
    start_handler().linnix_handle(make_batch(1))
    assert mode(path) == 0o600
    assert path.read_bytes().startswith(b'{"seq":0}\n{')


def test_a_symbolic_link_is_refused_and_its_target_left_alone(start_handler, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "linnix.jsonl").symlink_to(target)
    with pytest.raises(PluginUnavailable, match="is a symbolic link, not a regular file"):
        start_handler()
    assert target.read_bytes() == b"precious"


def test_a_symbolic_link_put_there_after_the_look_is_refused(start_handler, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    real_open = os.open

    def raced(path, *arguments, **options):
        if str(path).endswith("linnix.jsonl"):
            os.symlink(target, path)
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", raced)
    with pytest.raises(PluginUnavailable, match="cannot be opened"):
        start_handler()
    assert target.read_bytes() == b"precious"


def test_a_named_pipe_is_refused_without_waiting_for_a_reader(start_handler, tmp_path):
    os.mkfifo(tmp_path / "linnix.jsonl")
    with pytest.raises(PluginUnavailable, match="is a named pipe"):
        start_handler()


def test_a_directory_is_refused(start_handler, tmp_path):
    (tmp_path / "linnix.jsonl").mkdir()
    with pytest.raises(PluginUnavailable, match="is a directory"):
        start_handler()


def test_a_device_is_refused(start_handler):
    with pytest.raises(PluginUnavailable, match="/dev/null is a device"):
        start_handler(path="/dev/null")


def test_a_socket_is_refused(start_handler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("linnix.jsonl")
        with pytest.raises(PluginUnavailable, match="is a socket"):
            start_handler()


def test_a_file_of_another_user_is_refused(start_handler, tmp_path, as_root):
    path = tmp_path / "linnix.jsonl"
    path.touch()
    path.chmod(0o666)
    as_root("chown", "65534", str(path))
    with pytest.raises(PluginUnavailable, match=r"belongs to another user \(uid 65534\)"):
        start_handler()


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(start_handler, ordinary_folder):
    ordinary_folder.chmod(0o500)
    with pytest.raises(PluginUnavailable, match="cannot be opened: Permission denied") as caught:
        start_handler(path=str(ordinary_folder / "linnix.jsonl"))
    assert caught.value.hint


def test_a_folder_that_cannot_be_listed_is_tried_again(start_handler, make_batch, ordinary_folder):
    ordinary_folder.chmod(0o300)
    handler = start_handler(path=str(ordinary_folder / "linnix.jsonl"))
    assert "Permission denied" in handler.linnix_health().reason
    with pytest.raises(RecordsLost, match="Permission denied"):
        handler.linnix_handle(make_batch(3))
    ordinary_folder.chmod(0o700)
    handler.linnix_handle(make_batch(3))
    assert handler.linnix_health() == Health("ok")


def test_a_parent_that_is_no_folder_is_named_with_the_reason(start_handler, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PluginUnavailable, match="cannot be opened: Not a directory"):
        start_handler(path=str(tmp_path / "file" / "linnix.jsonl"))


def test_a_second_process_on_the_same_path_is_refused(start_handler, tmp_path):
    path = tmp_path / "linnix.jsonl"
    program = (
        "import sys, pathlib\n"
        "from linnix_plugin_jsonl.opening import open_private\n"
        "open_private(pathlib.Path(sys.argv[1]))\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(PluginUnavailable, match="written to by another Linnix") as caught:
            start_handler()
        assert "another path" in caught.value.hint
        holder.kill()
    start_handler()


def test_a_second_handler_of_the_same_run_is_refused_until_the_first_stops(start_handler):
    first = start_handler()
    with pytest.raises(PluginUnavailable, match="another Linnix"):
        start_handler()
    first.linnix_stop(deadline=time.monotonic() + 5)
    start_handler()


def test_a_file_rotated_away_between_opening_and_locking_is_not_written_to(
    start_handler, make_batch, tmp_path, monkeypatch
):
    path, aside = tmp_path / "linnix.jsonl", tmp_path / "aside"
    real_open = os.open

    def raced(opened, *arguments, **options):
        descriptor = real_open(opened, *arguments, **options)
        if opened == path and not aside.exists():
            path.rename(aside)
        return descriptor

    monkeypatch.setattr(os, "open", raced)
    start_handler().linnix_handle(make_batch(1))
    assert aside.read_bytes() == b""
    assert path.read_bytes().count(b"\n") == 1


def test_a_file_that_is_replaced_all_the_time_is_given_up(start_handler, tmp_path, monkeypatch):
    path = tmp_path / "linnix.jsonl"
    real_open = os.open

    def raced(opened, *arguments, **options):
        descriptor = real_open(opened, *arguments, **options)
        if opened == path:
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", raced)
    with pytest.raises(PluginUnavailable, match="replaced again and again"):
        start_handler()
