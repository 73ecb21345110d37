"""A model arrives whole and as it was registered, or not at all; what was begun goes on.

SSH is a real sshd on loopback. The cases that say "hafs" are those in which the tool before
this one lost or misplaced something.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from linnix_plugin_models import CrossPlatformPath
from linnix_plugin_models.formats import UnsafeWeights
from linnix_plugin_models.registry import ModelFile
from linnix_plugin_models.sftp import NotThere, Sftp, SftpSource
from linnix_plugin_models.syncfile import Host, Preferences
from linnix_plugin_models.transfer import (
    Broken,
    Entry,
    LocalSource,
    TransferError,
    fetch,
    partial_folder,
    select,
    workplace,
)

NASTY = ["a b", "it's", 'say "x"', "$HOME", "a;id", "`id`", "-rf", "a\\b", "ünï", "*?[x]", "a\nb",
         "#x", "~", "&|<>"]  # fmt: skip


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["local", "ssh"])
def source_of(request, sshd):
    """A source of a folder here: by itself, or over SSH."""

    def make(path: Path):
        if request.param == "local":
            return lambda: LocalSource(path)
        remote = CrossPlatformPath(path, "linux")
        return lambda: SftpSource(sshd.host, sshd.preferences, remote)

    return make


# --- what arrives ---------------------------------------------------------------------


def test_a_folder_keeps_its_shape(source_of, checkpoint, tmp_path):
    path = checkpoint()
    received = fetch(source_of(path), tmp_path / "models" / "m")
    assert tree(tmp_path / "models" / "m") == tree(path)  # hafs: nested once more over SSH
    assert {file.path: file.sha256 for file in received.files} == {
        name: digest(content) for name, content in tree(path).items()
    }
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m"]


def test_names_are_only_names(source_of, tmp_path, weights):
    folder = tmp_path / "$(id) o'x; -rf"
    for name in NASTY:
        (folder / "-sub dir" / name).mkdir(parents=True)
        (folder / "-sub dir" / name / f"{name}.txt").write_bytes(name.encode())
    (folder / "model.safetensors").write_bytes(weights.safetensors())
    fetch(source_of(folder), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_one_file_is_the_destination_itself(source_of, tmp_path, weights):
    path = tmp_path / "a b.gguf"
    path.write_bytes(weights.gguf())
    received = fetch(source_of(path), tmp_path / "out" / "a b.gguf")
    assert received.path.read_bytes() == path.read_bytes()
    assert [file.path for file in received.files] == ["a b.gguf"]


def test_what_is_there_is_replaced_as_a_whole(source_of, checkpoint, tmp_path):
    path, target = checkpoint(), tmp_path / "m"
    (target / "old").mkdir(parents=True)
    (target / "old" / "stale.txt").write_text("x")
    with pytest.raises(TransferError, match=r"stale.txt, which is not of this model"):
        fetch(source_of(path), target)
    fetch(source_of(path), target, replaceable={"old/stale.txt"})
    assert tree(target) == tree(path)  # hafs: stale files stay


def test_links_to_files_are_followed_and_links_to_folders_are_not(source_of, checkpoint, tmp_path):
    # As in the cache of Hugging Face, whose snapshots are links to blobs.
    path = checkpoint()
    blob = tmp_path / "blob"
    (path / "model.safetensors").rename(blob)
    (path / "model.safetensors").symlink_to(blob)
    (path / "loop").symlink_to(path)
    (path / "nowhere").symlink_to("nothing")
    fetch(source_of(path), tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    assert set(tree(tmp_path / "out")) == {
        "model.safetensors", "config.json", "metadata.json", "trainer_state.json",
        "tokens/tokenizer.json",
    }  # fmt: skip


def test_holes_stay_holes_and_sizes_sizes(tmp_path):
    path = tmp_path / "sparse.dat"
    with path.open("wb") as file:
        file.truncate(8 * 2**20)
        file.write(b"x")
    fetch(lambda: LocalSource(path), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == path.read_bytes()
    fetch(lambda: LocalSource(path), tmp_path / "again")
    assert (tmp_path / "again").stat().st_blocks * 512 < 4 * 2**20


def test_an_empty_file_arrives(source_of, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "empty").touch()
    assert fetch(source_of(tmp_path / "m"), tmp_path / "out").files[0].size == 0


def test_progress_grows_to_all_of_it(source_of, checkpoint, tmp_path):
    seen = []
    fetch(source_of(checkpoint()), tmp_path / "m", progress=lambda *said: seen.append(said))
    done = [said for said, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] > 0


def test_what_is_not_there_is_told_and_leaves_nothing(source_of, tmp_path):
    with pytest.raises(TransferError, match="there is nothing at"):
        fetch(source_of(tmp_path / "none"), tmp_path / "models" / "m")
    # hafs: an empty folder of the model is left behind
    assert not (tmp_path / "models").exists() or list((tmp_path / "models").iterdir()) == []


# --- what must not arrive -------------------------------------------------------------


def test_what_is_registered_otherwise_is_refused_and_not_kept(source_of, checkpoint, tmp_path):
    path = checkpoint()
    size = (path / "config.json").stat().st_size
    wanted = {"config.json": ModelFile("config.json", size, "0" * 64)}
    with pytest.raises(TransferError, match="and is registered 000"):
        fetch(source_of(path), tmp_path / "m", expected=wanted)
    assert not (tmp_path / "m").exists()
    assert not (partial_folder(tmp_path / "m") / "files" / "config.json").exists()
    other = {"config.json": ModelFile("config.json", 1)}
    with pytest.raises(TransferError, match=r"bytes at the source, and 1 in the registry"):
        fetch(source_of(path), tmp_path / "m", expected=other)
    with pytest.raises(TransferError, match=r"gone\.json is missing"):
        fetch(source_of(path), tmp_path / "m", expected={"gone.json": ModelFile("gone.json", 1)})


def test_damaged_weights_never_reach_their_place(source_of, checkpoint, tmp_path):
    path = checkpoint()
    (path / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(UnsafeWeights):
        fetch(source_of(path), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_pickles_are_left_out_and_named(source_of, checkpoint, tmp_path):
    path = checkpoint()
    (path / "training_args.bin").write_bytes(pickle.dumps({}))
    received = fetch(source_of(path), tmp_path / "m")
    assert received.refused == ("training_args.bin",)
    assert "training_args.bin" not in tree(tmp_path / "m")
    asked = fetch(source_of(path), tmp_path / "n", allow_pickle=True)
    assert "training_args.bin" in {file.path for file in asked.files}


def test_weights_that_are_pickles_are_refused_unless_asked_for(source_of, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (path / "config.json").write_text("{}")
    with pytest.raises(UnsafeWeights, match="run code") as error:
        fetch(source_of(path), tmp_path / "m")
    assert "--allow-pickle" in error.value.hint
    assert fetch(source_of(path), tmp_path / "m", allow_pickle=True).files


def test_a_pickle_under_another_name_is_refused(source_of, checkpoint, tmp_path):
    path = checkpoint()
    (path / "tokens" / "vocab.json").write_bytes(pickle.dumps({}))
    with pytest.raises(UnsafeWeights, match="is a pickle"):
        fetch(source_of(path), tmp_path / "m")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b", "a/./b", "a\0b"])
def test_a_source_cannot_name_what_is_elsewhere(name):
    with pytest.raises(TransferError, match="cannot be called"):
        select([Entry(name, 1)])


def test_without_room_nothing_is_begun(source_of, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(TransferError, match=r"GB are needed at .* and 0.0 GB are free"):
        fetch(source_of(checkpoint()), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_two_at_once_to_one_place_do_not_mix(checkpoint, tmp_path):
    path = checkpoint()

    class Nested(LocalSource):
        def entries(self):
            with pytest.raises(TransferError, match="somebody else is at work"):
                fetch(lambda: LocalSource(path), tmp_path / "m")
            return super().entries()

    fetch(lambda: Nested(path), tmp_path / "m")
    assert tree(tmp_path / "m") == tree(path)


# --- resumed --------------------------------------------------------------------------


class Breaking(LocalSource):
    """Ends the connection after so many chunks of a file, and notes what was read from where."""

    def __init__(self, path, chunks, log):
        super().__init__(path)
        self._chunks, self._log = chunks, log

    def read(self, entry, offset):
        self._log.append((entry.path, offset))
        for number, chunk in enumerate(super().read(entry, offset)):
            if number == self._chunks:
                raise Broken("the cable was pulled")
            yield chunk


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.mkdir()
    (path / "a.txt").write_text("first")
    (path / "b.dat").write_bytes(os.urandom(5 * 2**20 + 17))
    return path


def test_a_broken_connection_is_taken_up_where_it_ended(large, tmp_path):
    log, waited = [], []
    fetch(
        lambda: Breaking(large, 2, log), tmp_path / "m", retries=1, wait=waited.append
    )  # progress resets the count: it is tries in a row
    assert tree(tmp_path / "m") == tree(large)
    mib = 2**20
    assert log == [("a.txt", 0), ("b.dat", 0), ("b.dat", 2 * mib), ("b.dat", 4 * mib)]
    assert waited == [1.0, 1.0]


def test_without_progress_the_tries_end(large, tmp_path):
    waited = []
    with pytest.raises(Broken, match="cable"):
        fetch(lambda: Breaking(large, 0, []), tmp_path / "m", retries=3, wait=waited.append)
    assert waited == [1.0, 2.0, 4.0]
    assert not (tmp_path / "m").exists()


def test_a_second_run_goes_on_and_reads_nothing_twice(large, tmp_path):
    with pytest.raises(Broken):
        fetch(lambda: Breaking(large, 3, []), tmp_path / "m")
    log = []
    fetch(lambda: Breaking(large, 99, log), tmp_path / "m")
    assert log == [("b.dat", 3 * 2**20)]
    assert tree(tmp_path / "m") == tree(large)


def test_a_source_that_changed_in_between_is_read_anew(large, tmp_path):
    with pytest.raises(Broken):
        fetch(lambda: Breaking(large, 3, []), tmp_path / "m")
    (large / "b.dat").write_bytes(os.urandom(6 * 2**20))
    os.utime(large / "b.dat", ns=(1, 1))
    log = []
    fetch(lambda: Breaking(large, 99, log), tmp_path / "m")
    assert log == [("b.dat", 0)]
    assert tree(tmp_path / "m") == tree(large)


def test_a_file_that_is_cut_off_at_its_source_is_not_taken_for_whole(large, tmp_path):
    class Short(LocalSource):
        def read(self, entry, offset):
            yield from list(super().read(entry, offset))[:-1]

    with pytest.raises(Broken, match="ended after"):
        fetch(lambda: Short(large), tmp_path / "m")
    assert not (tmp_path / "m").exists()


FETCH = """
import sys
from pathlib import Path
from linnix_plugin_models.transfer import LocalSource, fetch
source, target, after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = 0
def progress(done, total):
    global seen
    seen += 1
    if seen == after:
        print("here", flush=True)
        sys.stdin.read()
fetch(lambda: LocalSource(source), target, progress=progress)
"""


@pytest.mark.parametrize("after", [1, 2, 4, 7])
def test_killed_at_any_moment_a_second_run_finishes(large, tmp_path, after):
    target = tmp_path / "m"
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, large, target, str(after)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    fetch(lambda: LocalSource(large), target)
    assert tree(target) == tree(large)
    assert not partial_folder(target).exists()


def test_killed_right_after_the_rename_nothing_is_copied_again(large, tmp_path, monkeypatch):
    target = tmp_path / "m"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("linnix_plugin_models.transfer._Staging.discard", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(lambda: LocalSource(large), target)
    monkeypatch.undo()
    assert tree(target) == tree(large)
    log = []
    received = fetch(lambda: Breaking(large, 99, log), target)
    assert log == []
    assert len(received.files) == 2
    assert not partial_folder(target).exists()


def test_a_workplace_is_empty_at_first_and_gone_afterwards(tmp_path):
    target = tmp_path / "x.gguf"
    left = partial_folder(target)
    left.mkdir()
    (left / "of-a-killed-run").touch()

    def fail():
        with workplace(target) as work:
            assert [p.name for p in work.iterdir()] == ["lock"]
            (work / "intermediate").touch()
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert not left.exists()


# --- SSH ------------------------------------------------------------------------------


def test_over_ssh_a_broken_connection_is_taken_up(sshd, large, tmp_path):
    offsets = []

    class Dying(SftpSource):
        def read(self, entry, offset):
            offsets.append((entry.path, offset))
            for chunk in super().read(entry, offset):
                yield chunk
                if len(offsets) == 2:
                    self._sftp._process.kill()

    remote = CrossPlatformPath(large, "linux")
    fetch(
        lambda: Dying(sshd.host, sshd.preferences, remote),
        tmp_path / "m",
        retries=2,
        wait=lambda _: None,
    )
    assert tree(tmp_path / "m") == tree(large)
    assert [path for path, _ in offsets] == ["a.txt", "b.dat", "b.dat"]
    assert offsets[2][1] > 0


def test_a_host_that_cannot_be_reached_is_told_with_what_to_try(sshd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = attrs.evolve(sshd.host, port=free.getsockname()[1])
    with pytest.raises(Broken, match="refused") as error:
        Sftp(host, sshd.preferences)
    assert "BatchMode" in error.value.hint


def alone(sshd):
    """The configuration without the connection that the other tests share."""
    lines = sshd.preferences.ssh_config.read_text().splitlines()
    return "\n".join(line for line in lines if "Control" not in line)


def test_a_host_that_does_not_know_us_is_no_matter_of_trying_again(sshd, tmp_path):
    strange = tmp_path / "strange"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", strange], check=True)
    config = tmp_path / "config"
    config.write_text(alone(sshd).replace(f"{sshd.folder}/user_key", str(strange)))
    # And it never asks for a password: BatchMode.
    with pytest.raises(TransferError, match="Permission denied") as error:
        Sftp(sshd.host, attrs.evolve(sshd.preferences, ssh_config=config))
    assert not isinstance(error.value, Broken)


def test_the_key_of_the_configuration_is_offered(sshd, tmp_path):
    config = tmp_path / "config"
    lines = alone(sshd).splitlines()
    config.write_text("\n".join(line for line in lines if "IdentityFile" not in line))
    preferences = attrs.evolve(sshd.preferences, ssh_config=config)
    host = attrs.evolve(sshd.host, ssh_key=sshd.folder / "user_key")
    with Sftp(host, preferences) as sftp:
        assert sftp.real_path(b"/") == b"/"


def test_a_silent_host_is_given_up(tmp_path):
    config = tmp_path / "config"
    config.write_text("Host *\n  ProxyCommand sleep 60\n")
    preferences = Preferences(ssh_config=config, ssh_timeout=0.3)
    with pytest.raises(Broken, match=r"silent for 0.3 s"):
        Sftp(Host(hostname="nobody"), preferences)


def test_without_ssh_the_next_step_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransferError, match="no ssh on PATH"):
        Sftp(Host(hostname="x"), Preferences())


def test_permission_denied_and_nothing_there_are_told_apart(sshd, tmp_path):
    with Sftp(sshd.host, sshd.preferences) as sftp:
        with pytest.raises(NotThere, match="nothing at loop:/none"):
            sftp.attributes(b"/none")
        with pytest.raises(TransferError, match="loop:"):
            sftp.write(os.fsencode(tmp_path), [b"x"])


def test_files_are_written_over_ssh_in_place_of_others(sshd, tmp_path):
    content = os.urandom(300_000)
    target = os.fsencode(tmp_path / "new dir" / "sub" / "it's $x")
    with Sftp(sshd.host, sshd.preferences) as sftp:
        sftp.make_folder(os.path.dirname(target))
        for _ in range(2):
            sftp.write(target + b".part", [content, b"end"], mtime=1_700_000_000)
            sftp.replace(target + b".part", target)
        assert sftp.attributes(target).mtime == 1_700_000_000
        sftp.remove(target)
        with pytest.raises(NotThere):
            sftp.attributes(target)


def fake_ssh(tmp_path, monkeypatch, answers: bytes) -> None:
    """An ``ssh`` that says this, whatever it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "answers").write_bytes(answers)
    script = folder / "ssh"
    script.write_text(f"#!/bin/sh\ncat '{tmp_path}/answers'\nexec sleep 30\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (b"Welcome to my server!\r\n", "packet of"),
        (b"\xff\xff\xff\xff\x02", "packet of"),
        (b"\0\0\0\0\2", "packet of"),
        (b"\0\0\0\5\x02\0\0\0\2", "older than version 3"),
        (b"\0\0\0\5\x65\0\0\0\3", "does not speak SFTP"),
        (b"\0\0\0\5\x02\0\0\0\3" + b"\0\0\0\1\x65", "without a number"),
        (b"\0\0\0\5\x02\0\0\0\3" + b"\0\0\0\5\x69\0\0\0\1", "ends too early"),
        (b"\0\0\0\5\x02\0\0\0\3" + b"\0\0\0\5\x67\0\0\0\1", "answers 103"),
        (b"\0\0\0\5\x02\0\0\0\3" + b"\0\0\0\5\x67\0\1\0\1", "silent"),
    ],
)  # fmt: skip
def test_a_server_that_is_none_is_found_out(tmp_path, monkeypatch, answers, said):
    fake_ssh(tmp_path, monkeypatch, answers)
    with (
        pytest.raises(TransferError, match=said),
        Sftp(Host(hostname="x"), Preferences(ssh_timeout=0.5)) as sftp,
    ):
        sftp.attributes(b"/x")


NOBODY = (Host(hostname="x"), Preferences(ssh_timeout=0.5))
HELLO = b"\0\0\0\5\x02\0\0\0\3"
HANDLE = struct.pack(">IBII", 10, 102, 1, 1) + b"h"


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack(">IBII", 9, 104, 2, 0),  # no names, for ever
        struct.pack(">IBII", 9, 104, 2, 2**31),
        struct.pack(">IBII", 9, 103, 2, 0),
    ],
)
def test_a_folder_without_end_is_found_out(tmp_path, monkeypatch, answer):
    fake_ssh(tmp_path, monkeypatch, HELLO + HANDLE + answer)
    with pytest.raises(TransferError), Sftp(*NOBODY) as sftp:
        list(sftp.listing(b"/x"))


@pytest.mark.parametrize("length", [0, 255 * 1024 + 1])
def test_a_file_that_comes_in_other_pieces_than_asked_for_is_found_out(
    tmp_path, monkeypatch, length
):
    data = struct.pack(">IBII", 9 + length, 103, 2, length) + bytes(length)
    fake_ssh(tmp_path, monkeypatch, HELLO + HANDLE + data)
    said = r"it gives [\d,]+ of 261,120 bytes"
    with pytest.raises(TransferError, match=said), Sftp(*NOBODY) as sftp:
        list(sftp.read(b"/x"))


def test_a_drive_is_found_in_the_spelling_of_the_server(sshd, tmp_path, monkeypatch):
    asked = []
    real = Sftp.attributes

    def rooted(self, path):
        asked.append(path)
        return real(self, path.replace(b"/d/", os.fsencode(tmp_path) + b"/"))

    monkeypatch.setattr(Sftp, "attributes", rooted)
    (tmp_path / "x").mkdir()
    source = SftpSource(sshd.host, sshd.preferences, CrossPlatformPath("D:/x", "windows"))
    source.close()
    assert asked == [b"/D:/x", b"/d/x"]
    with pytest.raises(NotThere):
        SftpSource(sshd.host, sshd.preferences, CrossPlatformPath("E:/x", "windows"))


def test_no_thread_and_no_process_is_left(sshd, checkpoint, tmp_path):
    before = threading.active_count()
    source = SftpSource(sshd.host, sshd.preferences, CrossPlatformPath(checkpoint(), "linux"))
    fetch(lambda: source, tmp_path / "m")
    assert source._sftp._process.returncode is not None
    assert threading.active_count() <= before
