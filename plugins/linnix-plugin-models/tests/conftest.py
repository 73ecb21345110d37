"""A real SSH server on loopback, tiny models, and commands in a home of their own."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from click.testing import CliRunner

from linnix_plugin_models.models_command import command as models_command
from linnix_plugin_models.sync_command import command as sync_command
from linnix_plugin_models.syncfile import Host, Preferences
from linnix_plugin_models.training_command import command as training_command

COMMANDS = {"models": models_command, "training": training_command, "sync": sync_command}


# --- a home, and commands in it -------------------------------------------------------


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, so that nothing of the user's is read or written."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    for name in list(os.environ):
        if name.startswith(("XDG_", "LINNIX_", "HF_")):
            monkeypatch.delenv(name)
    # Root's data would be the host's, and a linnix.toml in the current folder would count.
    config = path / "linnix.toml"
    config.write_text(f'[agent]\ndata_dir = "{tmp_path / "data"}"\n')
    monkeypatch.setenv("LINNIX_CONFIG", str(config))
    return path


@attrs.frozen
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str
    error: BaseException | None

    @property
    def json(self):
        assert self.code in (0, 1), self
        return json.loads(self.out)


@pytest.fixture
def linnix(home):
    """Run ``linnix models …`` and the like; a mistake comes back as its exception."""

    def run(*words: object) -> Said:
        name, *rest = map(str, words)
        result = CliRunner().invoke(COMMANDS[name], rest)
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            code = getattr(error, "exit_code", 1)
            return Said(code, result.stdout, result.stderr + str(error), error)
        return Said(result.exit_code, result.stdout, result.stderr, None)

    return run


@pytest.fixture
def sync_toml(home):
    """Write the user's sync.toml."""

    def write(text: str) -> Path:
        path = home / ".config" / "linnix" / "sync.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def registry_file(home):
    return home / ".context" / "models" / "registry.json"


# --- models ---------------------------------------------------------------------------


def safetensors(values=(1.0, 2.0), header=None) -> bytes:
    data = struct.pack(f"<{len(values)}f", *values)
    described = header or {
        "w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}
    }
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(quantization=15, architecture="llama", values=32, more=b"", count=0) -> bytes:
    """A GGUF with one F32 tensor; ``more`` are ``count`` further metadata pairs."""
    pairs = gguf_text("general.architecture") + struct.pack("<I", 8) + gguf_text(architecture)
    pairs += gguf_text("general.file_type") + struct.pack("<II", 4, quantization)
    pairs += more
    tensor = gguf_text("w") + struct.pack("<IQIQ", 1, values, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2 + count) + pairs + tensor
    return head + bytes(-len(head) % 32) + bytes(4 * values)


@pytest.fixture
def weights():
    """Makers of the bytes of small files of weights."""
    return SimpleNamespace(safetensors=safetensors, gguf=gguf, text=gguf_text)


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny checkpoint, as a training run leaves it."""

    def make(path: Path | None = None, size: int = 4) -> Path:
        path = path or tmp_path / "runs" / "oracle-farore-general-20251222"
        (path / "tokens").mkdir(parents=True)
        (path / "model.safetensors").write_bytes(safetensors([0.5 * n for n in range(size)]))
        (path / "config.json").write_text('{"model_type": "llama"}')
        (path / "tokens" / "tokenizer.json").write_text("{}")
        (path / "metadata.json").write_text(
            json.dumps(
                {
                    "expert": {"name": "Oracle: Farore", "role": "general", "group": "rom-tooling"},
                    "model": {"base": "Qwen/Qwen2.5-Coder-1.5B", "lora_rank": 16, "lora_alpha": 32},
                    "training": {
                        "dataset": "farore-v3", "num_samples": 1200, "num_epochs": 3,
                        "learning_rate": 2e-4, "duration_minutes": 41.7,
                    },
                    "hardware": {"name": "rtx-5060", "device": "cuda"},
                    "metadata": {"created": "2025-12-22T09:00:00", "git_commit": "19b447b"},
                }
            )
        )  # fmt: skip
        (path / "trainer_state.json").write_text(
            json.dumps(
                {
                    "log_history": [
                        {"loss": 1.5, "step": 1}, {"eval_loss": 0.9}, {"loss": 0.8245, "step": 2},
                    ],
                    "best_metric": 0.81,
                    "max_steps": 2,
                }
            )
        )  # fmt: skip
        return path

    return make


# --- a real SSH server ----------------------------------------------------------------


@attrs.frozen
class Server:
    """What a client needs to reach it."""

    host: Host
    preferences: Preferences
    port: int
    folder: Path

    def sync_toml(self, more: str = "", **preferences: object) -> str:
        said = {"ssh_config": str(self.preferences.ssh_config), **preferences}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
        return f'{more}\n[hosts.box]\nhostname = "loop"\n[preferences]\n{lines}\n'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """An ``sshd`` with keys and a configuration of its own."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        pytest.fail("no sshd here: apt install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"""ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""
    )
    # One connection for all tests: what a user's configuration says counts here, too.
    control = Path(tempfile.mkdtemp(prefix="linnix-ssh-"))  # a socket's path must be short
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "ssh_config").write_text(
        f"""Host loop
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  ControlMaster auto
  ControlPath {control}/%C
  ControlPersist 60
"""
    )
    server = subprocess.Popen(
        [program, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    for line in server.stderr:
        if "Server listening" in line:
            break
    else:
        pytest.fail(f"sshd does not start: {server.wait()}")
    # Keep reading, so that it never waits for a full pipe.
    threading.Thread(target=server.stderr.read, daemon=True).start()
    yield Server(
        host=Host(hostname="loop"),
        preferences=Preferences(ssh_config=folder / "ssh_config", ssh_timeout=20.0, max_retries=0),
        port=port,
        folder=folder,
    )
    subprocess.run(
        ["ssh", "-F", folder / "ssh_config", "-O", "exit", "loop"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    shutil.rmtree(control)
    server.terminate()
    server.wait(10)
    server.stderr.close()
