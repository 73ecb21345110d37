"""A real SSH server on loopback, tiny models, and commands in a home of their own."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from click.testing import CliRunner

from linnix_plugin_models.models_command import command as models_command
from linnix_plugin_models.sync_command import command as sync_command
from linnix_plugin_models.testing import ssh_server
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


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """An ``sshd`` with keys and a configuration of its own."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server
