"""The six steps of the old documentation, and what made people give up on them.

The numbers are those of the list of annoyances that the old tool left (section 10 of the facts
that were gathered about it); deployers and converters are in their own files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from linnix_core import LinnixError
from linnix_plugin_models import ModelRegistry
from linnix_plugin_models.transfer import Broken

ID = "oracle-farore-general-20251222"


@pytest.fixture
def windows(checkpoint, tmp_path, sync_toml):
    """A Windows machine whose disk is mounted here."""
    checkpoint(tmp_path / "mount" / "models" / ID)
    sync_toml(
        f"""
        [mounts.windows-training]
        local_path = "{tmp_path}/mount"
        remote_path = "D:/hafs_training"
        """
    )
    return f"D:/hafs_training/models/{ID}"


# --- 1, 2: register and pull ------------------------------------------------------------


def test_the_first_two_steps_as_they_are_written(linnix, windows, home):
    assert linnix("training", "register-model", windows).code == 0  # 1: no such command
    pulled = linnix("models", "pull", ID, "--json").json
    assert (pulled["method"], pulled["model_id"]) == ("mount", ID)
    assert pulled["path"] == str(home / ".local/share/linnix/models" / ID)
    model = linnix("models", "info", ID, "--json").json
    assert model["locations"] == {"windows": windows, "linux": pulled["path"]}  # 11: not "mac"
    assert model["primary_location"] == "windows"
    # What arrived is what is registered, here and there.
    assert len({a["digest"] for a in model["artifacts"]} - {None}) == 1
    assert linnix("models", "verify", "--json").json == {"files": 5, "problems": []}


def test_pulling_again_copies_nothing(linnix, windows):
    linnix("training", "register-model", windows)
    linnix("models", "pull", ID)
    assert "is here already" in linnix("models", "pull", ID).out
    assert linnix("models", "pull", ID, "--again", "--json").json["method"] == "mount"


def test_over_ssh_where_no_mount_is(linnix, sshd, checkpoint, sync_toml, home, tmp_path):
    path = checkpoint(tmp_path / "it's far; $x" / ID)
    sync_toml(sshd.sync_toml(f'deployment.local_models_dir = "{home}/models"'))
    linnix("models", "register", path, "--location", "box", "--base", "b", "--role", "asm")
    pulled = linnix("models", "pull", ID, "--json").json
    assert (pulled["method"], pulled["path"]) == ("sftp", f"{home}/models/{ID}")  # 5: nested
    assert (home / "models" / ID / "tokens" / "tokenizer.json").exists()


@pytest.mark.parametrize("method", ["ssh", "rsync"])
def test_mounts_are_left_alone_where_ssh_is_preferred(
    linnix, sshd, checkpoint, sync_toml, tmp_path, method
):
    path = checkpoint()
    mount = f'mounts.m = {{local_path = "{path.parent}", remote_path = "{path.parent}"}}'
    sync_toml(sshd.sync_toml(mount, transfer_method=method))
    linnix("models", "register", path, "--location", "box", "--base", "b", "--role", "asm")
    assert linnix("models", "pull", ID, "--json").json["method"] == "sftp"


def test_broken_connections_are_taken_up_as_often_as_wished(linnix, sshd, checkpoint, sync_toml,
                                                            monkeypatch):  # fmt: skip
    waited = []
    clock = SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr("linnix_plugin_models.transfer.time", clock)

    def cut(*_):
        raise Broken("the cable was cut")

    path = checkpoint()
    for said, count in (({"max_retries": 2}, 2), ({"retry_on_failure": False}, 0)):
        sync_toml(sshd.sync_toml(**said))
        linnix("models", "register", path, "--location", "box", "--base", "b", "--role", "asm")
        waited.clear()
        monkeypatch.setattr("linnix_plugin_models.sftp.SftpSource.read", cut)
        assert "cut" in linnix("models", "pull", ID).err
        assert len(waited) == count


def test_a_source_and_a_destination_can_be_named(linnix, windows, tmp_path, checkpoint):
    linnix("training", "register-model", windows)
    pulled = linnix("models", "pull", ID, "--source", "windows", "--dest", tmp_path / "d", "--json")
    assert pulled.json["path"] == str(tmp_path / "d" / ID)
    failed = linnix("models", "pull", ID, "--source", "cloud")
    assert "is not registered at cloud" in failed.err
    assert "windows" in failed.error.hint


def test_nothing_of_somebody_else_is_replaced(linnix, windows, tmp_path):
    linnix("training", "register-model", windows)
    theirs = tmp_path / "d" / ID / "thesis.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    failed = linnix("models", "pull", ID, "--dest", tmp_path / "d")
    assert "thesis.txt, which is not of this model" in failed.err
    assert theirs.read_text() == "years of work"
    theirs.unlink()
    assert linnix("models", "pull", ID, "--dest", tmp_path / "d").code == 0
    (tmp_path / "mount" / "models" / ID / "config.json").unlink()
    linnix("training", "register-model", windows)
    # What was pulled before may go with the version that replaces it.
    assert linnix("models", "pull", ID, "--dest", tmp_path / "d", "--again").code == 0
    assert not (tmp_path / "d" / ID / "config.json").exists()


def test_without_a_way_to_it_the_next_step_is_told(linnix, home):  # 4: late and obscure
    linnix("models", "register", "D:/m/x", "--base", "b", "--role", "asm")
    failed = linnix("models", "pull", "x")
    assert "there is no way to windows" in failed.err
    assert "[hosts.windows]" in failed.error.hint
    assert not (home / ".local/share/linnix/models").exists()
    alone = linnix("models", "register", home, "--id", "here", "--role", "asm")
    assert alone.code == 0
    assert "no other place" in linnix("models", "pull", "here", "--again").err


def test_a_gguf_from_elsewhere_is_registered_as_the_file(linnix, windows, tmp_path, weights):
    (tmp_path / "mount" / "models" / "tiny-Q8_0.gguf").write_bytes(weights.gguf(7))
    linnix("models", "register", "D:/hafs_training/models/tiny-Q8_0.gguf", "--role", "asm")
    pulled = linnix("models", "pull", "tiny-Q8_0", "--json").json
    model = linnix("models", "info", "tiny-Q8_0", "--json").json
    assert pulled["path"].endswith("tiny-Q8_0/tiny-Q8_0.gguf")
    assert model["locations"]["linux"] == pulled["path"]
    here = next(a for a in model["artifacts"] if a["location"] == "linux")
    assert (here["format"], here["quantization"]) == ("gguf", "Q8_0")


def test_what_changed_since_it_was_registered_is_not_pulled(linnix, windows, tmp_path):
    linnix("models", "register", windows, "--hash", "--role", "asm")
    weights = tmp_path / "mount" / "models" / ID / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    failed = linnix("models", "pull", ID)
    assert "is registered" in failed.err
    assert "linux" not in linnix("models", "info", ID, "--json").json["locations"]


def test_pickles_stay_where_they_are(linnix, windows, tmp_path):
    folder = tmp_path / "mount" / "models" / ID
    (folder / "optimizer.pt").write_bytes(b"\x80\4.")
    linnix("training", "register-model", windows)
    said = linnix("models", "pull", ID)
    assert "left out, because loading it runs code: optimizer.pt" in said.err
    assert (
        linnix("models", "pull", ID, "--again", "--allow-pickle", "--json").json["left_out"] == []
    )


def test_a_run_on_another_machine_is_described_by_its_files_over_ssh(
    linnix, sshd, checkpoint, sync_toml, tmp_path
):
    path = checkpoint(tmp_path / "box" / ID)
    sync_toml(sshd.sync_toml())
    said = linnix("training", "register-model", path, "--location", "box", "--json").json
    assert (said["final_loss"], said["base_model"]) == (0.8245, "Qwen/Qwen2.5-Coder-1.5B")
    (artifact,) = said["artifacts"]
    assert artifact["size"] == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert artifact["digest"] is None  # not read yet; pulling notes it for both places
    linnix("models", "pull", ID)
    artifacts = linnix("models", "info", ID, "--json").json["artifacts"]
    assert len({a["digest"] for a in artifacts}) == 1
    failed = linnix("training", "register-model", "/none", "--location", "box")
    assert "there is nothing at loop:/none" in failed.err


def test_a_host_that_is_off_keeps_nobody_from_registering(linnix, sync_toml):
    sync_toml('[hosts.box]\nhostname = "127.0.0.1"\nport = 9\nplatform = "windows"\n')
    said = linnix("models", "register", "D:/m/x", "--base", "b", "--role", "asm")
    assert said.code == 0
    assert "x is registered" in said.out


# --- registering ------------------------------------------------------------------------


def test_a_windows_path_can_be_registered_from_here(linnix):  # 11
    said = linnix(
        "models", "register", r"D:\models\x", "--base", "Qwen/Q", "--role", "asm", "--location",
        "windows", "--name", "X", "--version", "v2", "--tag", "gold", "--alias", "latest",
        "--dataset", "d1", "--parent", "x-v1", "--notes", "n", "--group", "g", "--json",
    ).json  # fmt: skip
    assert said["locations"] == {"windows": "D:/models/x"}
    assert (said["display_name"], said["version"], said["base_model"]) == ("X", "v2", "Qwen/Q")
    assert said["lineage"] == {"parent": "x-v1", "dataset": "d1"}
    assert linnix("models", "info", "latest", "--json").json["model_id"] == "x"
    assert linnix("models", "list", "--tag", "gold", "--json").json["total"] == 1


def test_a_path_that_is_not_here_is_told_once(linnix):  # 14: an extra line "failed: 1"
    failed = linnix("models", "register", "/nonexistent", "--base", "b", "--role", "asm")
    assert failed.err == "there is nothing at /nonexistent"
    assert isinstance(failed.error, LinnixError)
    assert linnix("models", "register").code == 2
    assert linnix("models", "register", "/x", "--import", "/y").code == 2


def test_models_of_the_old_tool_are_imported(linnix, tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"version": "1.0", "models": {"a": {"role": "asm"}, "b": {}}}))
    assert linnix("models", "register", "--import", path, "--json").json == {"imported": ["a", "b"]}
    assert "2 models imported" in linnix("models", "register", "--import", path).out
    assert "there is no file" in linnix("models", "register", "--import", tmp_path / "none").err


# --- looking ----------------------------------------------------------------------------


def test_lists_are_for_people_and_for_programs(linnix):
    assert linnix("models", "list").out == "No models yet.\n"
    ModelRegistry().register("a", display_name="M [bold]1\x1b[2J", role="asm")  # 14: markup eaten
    assert "M [bold]1\\x1b[2J" in linnix("models", "list").out
    assert linnix("models", "list", "--json").json["total"] == 1
    assert linnix("models", "list", "--role", "none").out == "No model fits.\n"
    assert linnix("models", "list", "--role", "none", "--json").json == {"models": [], "total": 0}
    assert linnix("models", "list", "--location", "mars", "--json").json["total"] == 0


def test_info_shows_everything_that_is_known(linnix, windows):
    linnix("training", "register-model", windows, "--tag", "gold", "--loss", "0.5")
    said = linnix("models", "info", ID).out
    for word in (
        "Oracle: Farore", "rom-tooling", "19b447b", "gold", "0.5", "0.81", "0.9", "1200",
        "windows (primary)", windows, "safetensors", "rtx-5060", "learning_rate=0.0002",
    ):  # fmt: skip
        assert word in said, word
    unknown = linnix("models", "info", ID + "x")
    assert (unknown.code, unknown.error.hint) == (1, f"did you mean {ID}?")


def test_a_table_on_a_terminal_is_one(linnix, home):
    import pty

    ModelRegistry().register("a", display_name="M [bold]1", role="asm")
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "linnix_core", "models", "list"],
        stdout=other, stderr=other, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    process.wait(60)
    os.close(other)
    said = b""
    try:
        while part := os.read(main, 65536):
            said += part
    except OSError:
        pass
    os.close(main)
    text = said.decode()
    assert "Registered models (1)" in text
    assert "M [bold]1" in text
    assert "│" in text


def test_paths_are_shown_in_every_spelling(linnix, windows, tmp_path):
    found = linnix("models", "paths", windows, "--json").json
    assert found["posix"] == f"/d/hafs_training/models/{ID}"
    assert found["sftp"] == f"/D:/hafs_training/models/{ID}"
    assert found["here"] == str(tmp_path / "mount" / "models" / ID)
    back = linnix("models", "paths", tmp_path / "mount" / "models", "--json").json
    assert back["remote"] == r"windows-training: D:\hafs_training\models"
    assert "D:\\hafs_training" in linnix("models", "paths", windows).out
    shown = linnix("models", "paths", "--json").json
    assert "(there)" in shown["mounts"]["windows-training"]
    assert shown["files"]["registry"].endswith(".context/models/registry.json")
    assert "windows-training" in linnix("models", "paths").out


def test_a_mistake_in_sync_toml_ends_every_command_that_needs_it(linnix, sync_toml):
    sync_toml("[preferences]\nssh_timeot = 3\n")
    failed = linnix("models", "paths")
    assert failed.code == 2
    assert "preferences.ssh_timeot: unknown key (did you mean 'ssh_timeout'?)" in failed.err


def test_files_can_be_named_on_the_command_line(linnix, tmp_path):
    sync = tmp_path / "s.toml"
    sync.write_text(f'[deployment]\nlocal_models_dir = "{tmp_path}/m"\n')
    shown = linnix(
        "models", "--registry", tmp_path / "r.json", "--sync-config", sync, "paths", "--json"
    ).json
    assert shown["files"]["registry"] == f"{tmp_path}/r.json"
    assert shown["files"]["models"] == f"{tmp_path}/m"


# --- checking and forgetting ------------------------------------------------------------


def test_what_changed_on_disk_is_found(linnix, checkpoint):
    path = checkpoint()
    linnix("training", "register-model", path)
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    (path / "config.json").write_text("{}")
    (path / "metadata.json").unlink()
    said = linnix("models", "verify", ID)
    assert said.code == 1
    assert "has the SHA-256" in said.out
    assert "bytes instead of" in said.out
    assert "metadata.json: is not there" in said.out
    assert len(linnix("models", "verify", "--json").json["problems"]) == 3


def test_a_model_whose_files_were_never_noted_is_found(linnix, tmp_path):
    ModelRegistry().register("old", location="linux", path=str(tmp_path))
    ModelRegistry().register("lost", location="linux", path="/nonexistent")
    reasons = {
        p["model_id"]: p["reason"] for p in linnix("models", "verify", "--json").json["problems"]
    }
    assert reasons == {
        "old": "its files were never noted: register it again",
        "lost": "is not there",
    }


def test_deleting_forgets_and_on_request_removes(linnix, windows, home, tmp_path):  # 15
    linnix("training", "register-model", windows)
    path = linnix("models", "pull", ID, "--json").json["path"]
    assert linnix("models", "delete", ID).code == 1  # asked, and nobody answers
    gone = linnix("models", "delete", ID, "--files", "--yes", "--json").json
    assert gone == {"deleted": ID, "files": [path]}
    assert not os.path.exists(path)
    assert (tmp_path / "mount" / "models" / ID).exists()
    assert linnix("models", "delete", ID, "--yes").code == 1


def test_files_that_linnix_did_not_bring_are_not_removed(linnix, checkpoint):
    path = checkpoint()
    linnix("training", "register-model", path)
    failed = linnix("models", "delete", ID, "--files", "--yes")
    assert "is not in" in failed.err
    assert path.exists()
    assert linnix("models", "info", ID).code == 0
    assert linnix("models", "delete", ID, "--location", "linux", "--yes").code == 0
    assert linnix("models", "info", ID, "--json").json["locations"] == {}
