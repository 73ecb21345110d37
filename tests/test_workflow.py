"""From a checkpoint on another machine to an agent that reasons with it: the whole way, for real.

A checkpoint with random weights, a real SSH server, llama.cpp's own quantization and server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from linnix_core import ProcessEvent, encode

pytestmark = pytest.mark.timeout(400)

#: Seconds after which something that a test waits for will not happen any more.
HANG_S = 100.0

MODEL = "oracle-farore-general-tiny-20261122"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    from linnix_plugin_models.testing import ssh_server

    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def run_folder(tmp_path):
    """What a training run has left on its machine."""
    from linnix_plugin_gguf.testing import tiny_checkpoint

    path = tiny_checkpoint(tmp_path / "hafs_training" / "models" / MODEL, "qwen2", shards=2)
    (path / "trainer_state.json").write_text('{"log_history": [{"loss": 0.8245, "step": 2}]}')
    return path


@pytest.fixture
def environment(tmp_path):
    """A home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    config = tmp_path / "linnix.toml"
    config.write_text(
        f'[agent]\ndata_dir = "{tmp_path}/data"\nreason_timeout_s = 100\n'
        "[deployers.llama-cpp]\nport = 0\ncontext = 16384\nthreads = 1\n"
        '[reasoners.openai]\ndeployment = "oracle-farore"\nmax_tokens = 1500\n'
        f'[collectors.replay]\npath = "{tmp_path}/incident.jsonl"\n'
        f'[handlers.jsonl]\npath = "{tmp_path}/said.jsonl"\n'
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "LINNIX", "LLM_"))}
    return {**kept, "HOME": str(home), "LINNIX_CONFIG": str(config)}


@pytest.fixture
def begin(environment):
    """Begin a command, as a person does."""

    def run(*words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "linnix_core", *map(str, words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture
def linnix(begin):
    """Run a command that must succeed, and give what it says, as JSON where it is asked for."""
    deployed = False

    def run(*words: object, code: int = 0):
        nonlocal deployed
        deployed |= "deploy" in words
        with begin(*words) as process:
            out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == code, (words, out, err)
        return json.loads(out) if "--json" in words else out

    yield run
    if deployed:
        with begin("models", "undeploy", MODEL) as process:
            process.communicate(timeout=HANG_S)


@pytest.fixture
def sync_toml(environment):
    def write(text):
        path = Path(environment["HOME"], ".config", "linnix", "sync.toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def fork_storm(path):
    """A recording: a shell forks a thousand times in two seconds."""
    second, began = 10**9, 1_767_225_600 * 10**9
    common = {"boot_id": "b", "run_id": "r", "cgroup": "/app.slice"}
    shell = ProcessEvent("seen", pid=100, start_ns=5, comm="bash", exe="/usr/bin/bash",
                         ts_ns=began, seq=1, **common)  # fmt: skip
    forks = [
        ProcessEvent("fork", pid=1000 + n, start_ns=6 + n, ppid=100, parent_start_ns=5,
                     comm="bash", exe="/usr/bin/bash", ts_ns=began + n * second // 500,
                     seq=2 + n, **common)
        for n in range(1000)
    ]  # fmt: skip
    path.write_bytes(b"".join(encode(record) + b"\n" for record in (shell, *forks)))


def insights(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["type"] == "insight"]


@pytest.mark.parametrize("way", ["over SSH", "from a Windows path through a mount"])
def test_the_whole_way(linnix, sshd, sync_toml, run_folder, tmp_path, way):
    if way == "over SSH":
        sync_toml(sshd.sync_toml())
        linnix("training", "register-model", run_folder, "--location", "box")
    else:
        mounted = run_folder.parents[1]
        sync_toml(
            f'[mounts.training]\nlocal_path = "{mounted}"\nremote_path = "D:/hafs_training"\n'
        )
        linnix("training", "register-model", f"D:\\hafs_training\\models\\{MODEL}")
    known = linnix("models", "info", MODEL, "--json")
    assert known["final_loss"] == 0.8245

    pulled = linnix("models", "pull", MODEL, "--json")
    assert pulled["method"] == ("sftp" if way == "over SSH" else "mount")
    made = linnix("models", "convert", MODEL, "gguf", "--quant", "Q4_K_M", "--json")
    assert (made["format"], made["quantization"]) == ("gguf", "Q4_K_M")

    served = linnix("models", "deploy", MODEL, "llama.cpp", "--name", "oracle-farore", "--json")
    assert served["deployer"] == "llama-cpp"
    tested = linnix("models", "test", MODEL, "llama.cpp", "--json")
    assert [(one["name"], one["health"]["status"]) for one in tested] == [("oracle-farore", "ok")]
    known = linnix("models", "info", MODEL, "--json")
    assert known["formats"] == ["safetensors", "gguf"]
    assert known["deployed_backends"] == ["llama.cpp"]
    assert linnix("models", "verify", MODEL, "--json")["problems"] == []

    fork_storm(tmp_path / "incident.jsonl")
    linnix("run", "--collector", "replay")
    said = insights(tmp_path / "said.jsonl")
    assert {one["reasoner"] for one in said} == {"openai"}
    assert all(one["grounded"] for one in said)

    linnix("models", "undeploy", MODEL)
    assert linnix("models", "status", "--json") == []
    assert linnix("models", "info", MODEL, "--json")["deployed_backends"] == []


# --- killed on the way ----------------------------------------------------------------


@pytest.fixture
def kill(begin):
    """Begin a command, and kill it as soon as it has come to some point."""

    def run(is_there, *words):
        with begin(*words) as process:
            deadline = time.monotonic() + HANG_S
            while not is_there() and process.poll() is None:
                assert time.monotonic() < deadline, words
                time.sleep(0.002)
            process.kill()
            process.communicate()
        return process.returncode == -9

    return run


def test_killed_at_any_step_a_second_run_finishes(
    linnix, kill, sshd, sync_toml, run_folder, environment, tmp_path
):
    from linnix_plugin_models import ModelRegistry
    from linnix_plugin_models.verification import verify

    registry = Path(environment["HOME"], ".context", "models")
    models = tmp_path / "models"
    sync_toml(sshd.sync_toml(f'[deployment]\nlocal_models_dir = "{models}"\n'))

    def servers():
        return {path.stem for path in tmp_path.glob("data/**/servers/*.json")}

    register = ["training", "register-model", run_folder, "--location", "box"]
    convert = ["models", "convert", MODEL, "gguf", "--quant", "Q8_0"]
    deploy = ["models", "deploy", MODEL, "llama.cpp"]
    for is_there, command in (
        (lambda: any(registry.glob("*")), register),
        (lambda: any(models.glob(f".{MODEL}*/**/*.safetensors")), ["models", "pull", MODEL]),
        (lambda: any(models.rglob("plain.gguf")), convert),
        (lambda: any(models.glob(f"*/.*/{MODEL}-Q8_0.gguf")), [*convert, "--again"]),
        (servers, deploy),
        (lambda: not servers(), ["models", "undeploy", MODEL]),
    ):
        assert kill(is_there, *command) or "undeploy" in command, command
        # The registry opens, and what it has is whole.
        whole = ModelRegistry(registry / "registry.json").models()
        assert verify(whole)[0] == []
        # What looks like a model is registered.
        known = {Path(artifact.path) for model in whole for artifact in model.artifacts}
        for path in models.glob("[!.]*/[!.]*"):
            assert {path, path.parent} & known, (command, path)
        linnix(*command)
        if command is deploy:
            linnix(*command)
            assert servers() == {MODEL}
    assert linnix("models", "status", "--json") == []
    known = linnix("models", "info", MODEL, "--json")
    assert (known["formats"], known["deployments"]) == (["safetensors", "gguf"], [])
    assert not any(models.rglob("*partial*"))
    assert servers() == set()
