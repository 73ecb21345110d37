"""``linnix sync``: what changed goes to every destination, and nothing else happens there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_models.sftp import Sftp
from linnix_plugin_models.syncing import excluded
from linnix_plugin_models.transfer import Broken


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def code(tmp_path):
    """A folder with what is wanted, what is not, and names that are only names."""
    source = tmp_path / "code"
    for name in ("a.py", "pkg/b.py", "pkg/-rf $x; 'q\".py", "pkg/__pycache__/b.pyc", "c.pyc",
                 "logs/old.log"):  # fmt: skip
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "link").symlink_to("/etc/passwd")
    return source


WANTED = ["a.py", "pkg/-rf $x; 'q\".py", "pkg/b.py"]


def rule(source, *destinations):
    listed = ", ".join(f"'{each}'" for each in destinations)
    return (
        f'[sync.code]\nsource = "{source}"\ndestinations = [{listed}]\n'
        'exclude_patterns = ["*.pyc", "__pycache__/", "logs/*.log"]\n'
    )


@pytest.fixture
def mount(tmp_path):
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "mounted").touch()
    return f'[mounts.disk]\nlocal_path = "{tmp_path}/mount"\nremote_path = "D:/disk"\n'


def test_to_a_mount_goes_what_changed(linnix, sync_toml, code, mount, tmp_path):
    sync_toml(mount + rule(code, "disk:/code"))
    dry = linnix("sync", "run", "code", "--dry-run", "--json").json
    assert sorted(dry[0]["files"]) == sorted(WANTED)
    assert not (tmp_path / "mount" / "code").exists()
    (first,) = linnix("sync", "run", "code", "--json").json
    assert (first["method"], len(first["files"]), first["unchanged"]) == ("mount", 3, 0)
    assert sorted(tree(tmp_path / "mount" / "code")) == sorted(WANTED)
    (tmp_path / "mount" / "code" / "theirs").write_text("stays")
    (code / "a.py").write_text("changed")
    (again,) = linnix("sync", "run", "code", "--json").json
    assert (again["files"], again["unchanged"]) == (["a.py"], 2)
    assert tree(tmp_path / "mount" / "code")["a.py"] == "changed"
    assert "theirs" in tree(tmp_path / "mount" / "code")
    assert not [name for name in tree(tmp_path / "mount") if "partial" in name]


@pytest.mark.parametrize(
    ("preferred", "method"), [("mount", "rsync"), ("rsync", "rsync"), ("ssh", "sftp")]
)
def test_to_a_host_by_rsync_where_both_have_it_else_sftp(
    linnix, sync_toml, code, sshd, tmp_path, preferred, method
):
    assert shutil.which("rsync"), "apt install rsync"
    target = tmp_path / "over there; $x `id` *"
    sync_toml(sshd.sync_toml(rule(code, f"box:{target}"), transfer_method=preferred))
    (first,) = linnix("sync", "run", "code", "--json").json
    assert (first["method"], first["error"]) == (method, None)
    assert tree(target) == {name: name for name in WANTED}
    told = (target / "a.py").stat()
    assert int(told.st_mtime) == int((code / "a.py").stat().st_mtime)
    (code / "pkg" / "b.py").write_text("changed")
    (again,) = linnix("sync", "run", "code", "--json").json
    assert again["files"] == ["pkg/b.py"]
    assert tree(target)["pkg/b.py"] == "changed"


def test_without_rsync_here_it_is_sftp(linnix, sync_toml, code, sshd, tmp_path, monkeypatch):
    monkeypatch.setattr("linnix_plugin_models.syncing.shutil.which", lambda _: None)
    sync_toml(sshd.sync_toml(rule(code, f"box:{tmp_path}/t")))
    assert linnix("sync", "run", "code", "--json").json[0]["method"] == "sftp"
    assert sorted(tree(tmp_path / "t")) == sorted(WANTED)


def test_one_destination_that_fails_does_not_keep_the_others_from_it(
    linnix, sync_toml, code, mount, tmp_path
):
    gone = f'[mounts.gone]\nlocal_path = "{tmp_path}/gone"\nremote_path = "E:/x"\n'
    sync_toml(gone + mount + rule(code, "gone:/x", "disk:/x"))
    said = linnix("sync", "run", "code")
    assert said.code == 1
    assert "gone:/x: failed: the mount gone is not there" in said.out
    assert "disk:/x: 3 files copied" in said.out
    assert "1 of 2 destinations failed" in said.err
    assert linnix("sync", "run", "code", "--json").code == 1
    assert not (tmp_path / "gone").exists()  # an unmounted disk is not filled up below its mount


def test_a_destination_cannot_lead_out_of_its_mount(linnix, sync_toml, code, mount, tmp_path):
    sync_toml(mount + rule(code, "disk:/../../x"))
    linnix("sync", "run", "code")
    assert sorted(tree(tmp_path / "mount" / "x")) == sorted(WANTED)
    sync_toml(mount + rule(code, "disk:../x"))
    assert "leads out of the mount" in linnix("sync", "run", "code").err


def test_rules_are_listed_and_shown(linnix, sync_toml, code, mount, tmp_path):
    assert "There is no rule" in linnix("sync", "list").out
    sync_toml(mount + "[hosts.box]\nhostname = 'h'\n" + rule(code, "disk:/code", "box:/srv/code"))
    (listed,) = linnix("sync", "list", "--json").json
    assert (listed["name"], listed["source"]) == ("code", str(code))
    assert "disk:/code, box:/srv/code" in linnix("sync", "list").out
    shown = linnix("sync", "show", "code", "--json").json
    assert sorted(shown["files"]) == sorted(WANTED)
    assert shown["destinations"] == {
        "disk:/code": str(tmp_path / "mount" / "code"), "box:/srv/code": "h:/srv/code",
    }  # fmt: skip
    assert "h:/srv/code" in linnix("sync", "show", "code").out
    assert "known: code" in linnix("sync", "show", "cod").err
    assert "known: code" in linnix("sync", "run", "cod").err


def test_a_source_that_is_not_there_is_told(linnix, sync_toml, mount):
    sync_toml(mount + rule("/nonexistent", "disk:/x"))
    assert "there is no folder /nonexistent" in linnix("sync", "run", "code").err


def test_a_target_that_cannot_be_written_is_told(linnix, sync_toml, code, mount, tmp_path):
    (tmp_path / "mount" / "code").write_text("a file")
    sync_toml(mount + rule(code, "disk:/code"))
    said = linnix("sync", "run", "code")
    assert said.code == 1
    assert "failed" in said.out


@pytest.mark.parametrize(
    ("path", "pattern", "taken"),
    [
        ("a/b.pyc", "*.pyc", True),
        ("a/__pycache__/x", "__pycache__", True),
        ("a/__pycache__/x", "__pycache__/", True),
        ("logs/a.log", "logs/*.log", True),
        ("other/logs/a.log", "logs/*.log", False),
        ("build/x/y", "build/x", True),
        ("a.py", "*.pyc", False),
        ("A.PYC", "*.pyc", False),
    ],
)
def test_patterns(path, pattern, taken):
    assert excluded(path, [pattern]) is taken


@given(st.lists(st.sampled_from(["a", "b.pyc", "__pycache__", "c"]), min_size=1, max_size=5))
def test_whoever_leaves_out_a_folder_leaves_out_what_is_in_it(parts):
    for count in range(1, len(parts)):
        if excluded("/".join(parts[:count]), ["*.pyc", "__pycache__"]):
            assert excluded("/".join(parts), ["*.pyc", "__pycache__"])


def test_times_are_kept_to_the_second(linnix, sync_toml, code, mount, tmp_path):
    os.utime(code / "a.py", (1_700_000_000, 1_700_000_000))
    sync_toml(mount + rule(code, "disk:/c"))
    linnix("sync", "run", "code")
    assert (tmp_path / "mount" / "c" / "a.py").stat().st_mtime == 1_700_000_000


def test_a_broken_connection_is_taken_up_as_often_as_wished(
    linnix, sync_toml, code, sshd, tmp_path, monkeypatch
):
    waited, tries = [], []
    clock = SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr("linnix_plugin_models.syncing.time", clock)
    real = Sftp.write

    def write(self, path, chunks, mtime=None):
        tries.append(path)
        if len(tries) in (2, 3):
            raise Broken("the cable was cut")
        real(self, path, chunks, mtime)

    monkeypatch.setattr(Sftp, "write", write)
    text = rule(code, f"box:{tmp_path}/t")
    sync_toml(sshd.sync_toml(text, transfer_method="ssh", retry_on_failure=False))
    assert "cable" in linnix("sync", "run", "code", "--json").json[0]["error"]
    sync_toml(sshd.sync_toml(text, transfer_method="ssh", max_retries=1))
    assert linnix("sync", "run", "code", "--json").json[0]["error"] is None
    assert waited == [1.0]
    assert tree(tmp_path / "t") == {name: name for name in WANTED}
