"""What made people give up on the old tool, as far as no other file here has it.

The numbers are those of the list that was gathered about it; 2.2 is its table of paths. The six
steps go the whole way here: a converter that is a stand-in, the deployers ollama and halext as
they are installed, and a stand-in for the server.
"""

from __future__ import annotations

import subprocess

import pytest

from linnix_core import ConfigError
from linnix_plugin_models import CrossPlatformPath, read_sync_file
from linnix_plugin_ollama.testing import FakeOllama

ID = "oracle-farore-general-20251222"

CONVERTER = """
import os
from pathlib import Path
from linnix_plugin_models import Conversion

def convert(request):
    request.target.write_bytes(Path(os.environ["CONVERTER_GGUF"]).read_bytes())
    return Conversion(quantization=request.quantization)
"""


# --- 2.2: paths -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        r"D:\hafs training\o'x (1)",  # the quote was left alone
        r"\\wsl$\Ubuntu\home\$USER",  # the $ was
        r"\\srv\share$\a b",
        r"D:\a;rm -rf ~\`id`",
    ],
)
def test_a_windows_path_is_one_word_for_a_shell(text):
    path = CrossPlatformPath(text, "windows")
    said = subprocess.run(
        ["sh", "-c", f"printf %s {path.for_shell_escape()}"], capture_output=True, text=True
    )
    assert said.stdout in (path.to_posix(), path.to_wsl() if "wsl" in text else None)


def test_a_path_of_git_bash_is_none_of_linux():
    path = CrossPlatformPath("/c/Users/x", "linux")  # was C:\c\Users\x
    with pytest.raises(ValueError, match="no Windows form"):
        path.to_windows()
    assert CrossPlatformPath("/c/Users/x", "windows").to_windows("backslash") == r"C:\Users\x"


def test_a_drive_is_no_path_of_a_mac():
    path = CrossPlatformPath("D:/x", "mac")  # was D:\x
    with pytest.raises(ValueError, match="Windows allows no ':'"):
        path.to_windows()
    assert path.to_posix() == "D:/x"  # a folder called "D:"


# --- 12: three dialects in one file ---------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[windows]\nmount = "/Volumes/d"\npath = "D:/hafs"\n', "windows"),
        ('[[profiles]]\nname = "x"\nsource = "/a"\n', "profiles"),
    ],
)
def test_what_belongs_to_another_tool_is_told(sync_toml, text, place):
    sync_toml(text)
    with pytest.raises(ConfigError) as error:
        read_sync_file()
    assert [problem.path for problem in error.value.problems] == [place]


# --- 1, 2, 8, 9, 11, 14: the six steps ------------------------------------------------


@pytest.fixture
def ollama():
    """A stand-in for the server, which is a halext node as well."""
    fake = FakeOllama()
    yield fake
    fake.close()


@pytest.fixture
def converter(linnix_distribution, monkeypatch, tmp_path, weights):
    """What makes a GGUF of anything."""
    linnix_distribution(
        "linnix-plugin-fakegguf",
        entry_points={"linnix_plugin_models.converters": {"gguf": "fakegguf:convert"}},
        modules={"fakegguf.py": CONVERTER},
    )
    made = tmp_path / "made.gguf"
    made.write_bytes(weights.gguf(15))
    monkeypatch.setenv("CONVERTER_GGUF", str(made))


@pytest.fixture
def trained(monkeypatch, tmp_path, checkpoint, sync_toml, home, ollama):
    """A run on a Windows disk that is mounted here, and the server configured."""
    for name in ("OLLAMA_HOST", "HALEXT_API_KEY", "HALEXT_USERNAME", "HALEXT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    checkpoint(tmp_path / "mount" / "models" / ID)
    sync_toml(
        f"""
        [mounts.windows-training]
        local_path = "{tmp_path}/mount"
        remote_path = "D:/hafs_training"
        [deployment.halext_nodes]
        node1 = "{ollama.url}/api"
        """
    )
    with (home / "linnix.toml").open("a") as file:
        file.write(f'[deployers.ollama]\nhost = "{ollama.url}"\n')
    return f"D:/hafs_training/models/{ID}"


@pytest.fixture
def converted(linnix, trained, converter):
    """Steps one to three."""
    for step in (
        ("training", "register-model", trained),
        ("models", "pull", ID),
        ("models", "convert", ID, "gguf", "--quant", "Q4_K_M"),
    ):
        said = linnix(*step)
        assert said.code == 0, said
    return ID


def deployed(linnix):
    return linnix("models", "info", ID, "--json").json["deployments"]


def test_what_was_converted_is_found_and_deployed(linnix, converted, ollama):
    # 1: the file was looked for beside its place, after the whole conversion
    said = linnix("models", "deploy", ID, "ollama", "--name", "oracle-farore", "--json")
    assert said.code == 0, said
    (known,) = deployed(linnix)
    assert (known["name"], known["quantization"], known["health"]) == (
        "oracle-farore", "Q4_K_M", "ok",
    )  # fmt: skip
    assert known["path"].endswith(f"{ID}-Q4_K_M.gguf")  # 8: which file it is
    assert known["digest"] == ollama.models["oracle-farore:latest"].weights
    # 10: the marks of the family, where the model brings none
    assert "<|im_start|>" in ollama.models["oracle-farore:latest"].template
    assert linnix("models", "test", ID, "ollama").code == 0
    assert linnix("models", "undeploy", ID, "ollama").code == 0
    assert list(ollama.models) == ["small:latest"]
    assert deployed(linnix) == []


def test_a_test_does_not_pass_on_anything(linnix, converted, ollama):  # 10
    linnix("models", "deploy", ID, "ollama")
    for says in ("", "NOP", '{"word": "00000000", "number": 8}'):
        ollama.chat = lambda handler, body, says=says: ollama.say(
            handler, says, model=body["model"]
        )
        said = linnix("models", "test", ID, "ollama")
        assert said.code == 1, says


def test_a_halext_node_has_what_is_said_to_be_there(linnix, converted, ollama):  # 2, 11, 17
    assert linnix("models", "deploy", ID, "halext", "--name", "node1").code == 0
    assert f"{ID}:latest" in ollama.models
    known = linnix("models", "info", ID, "--json").json
    assert known["halext_node_id"] == "node1"
    assert linnix("models", "test", ID, "halext-node").code == 0
    del ollama.models[f"{ID}:latest"]
    assert linnix("models", "test", ID, "halext").code == 1
    assert linnix("models", "undeploy", ID, "halext").code == 0


def test_a_deployment_that_fails_is_told_once(linnix, converted, ollama):  # 14
    ollama.load = lambda handler, body: handler.send({"error": "no memory left"}, 500)
    failed = linnix("models", "deploy", ID, "ollama")
    assert (failed.code, failed.err.count("no memory left")) == (1, 1)
    assert "failed: 1" not in failed.err + failed.out
    assert deployed(linnix) == []
    assert list(ollama.models) == ["small:latest"]


def test_killed_while_it_is_deployed_a_second_run_finishes(linnix, converted, ollama):
    def hang_up(handler, body):
        handler.close_connection = True

    ollama.create = hang_up
    assert linnix("models", "deploy", ID, "ollama").code == 1
    assert deployed(linnix) == []
    ollama.create = ollama.make
    assert linnix("models", "deploy", ID, "ollama").code == 0
    uploads = [size for size in ollama.asked("/api/blobs/") if size != {}]
    assert len(uploads) == 1  # what had arrived was there
