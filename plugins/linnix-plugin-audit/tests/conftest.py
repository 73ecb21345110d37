"""A made-up repository: clean at first, and a test breaks one rule of it."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from linnix_plugin_audit.commands import command

OPEN = """
[project]
name = "{name}"
license = "{licence}"
dependencies = {requires}
"""

IDENTITY = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}  # fmt: skip


class Made:
    """A repository that a test writes to."""

    def __init__(self, root):
        self.root = root
        root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *args):
        done = subprocess.run(
            ["git", "-C", str(self.root), *args],
            check=True, capture_output=True, env={**os.environ, **IDENTITY},
        )  # fmt: skip
        return done.stdout.decode().strip()

    def write(self, path, text=""):
        file = self.root / path if isinstance(path, str) else Path(os.fsdecode(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def commit(self, message="A commit"):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def distribution(self, name, *, licence="Apache-2.0", requires=("linnix-core",), files=None):
        folder = f"plugins/{name}"
        text = OPEN.format(name=name, licence=licence, requires=list(requires))
        self.write(f"{folder}/pyproject.toml", text)
        for path, content in (files or {}).items():
            self.write(f"{folder}/{path}", content)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A clean repository with an open and an enterprise distribution, and a demo model."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    made = Made(tmp_path / "made")
    made.write("README.md", "Install it into /home/you/linnix.\n")
    made.write("linnix-3b-distilled-q5_k_m.gguf", b"GGUF demo")
    made.write("datasets/examples/50.jsonl", '{"messages": []}\n' * 50)
    module = "src/linnix_plugin_open/__init__.py"
    made.distribution("linnix-plugin-open", files={module: "import os\n"})
    made.distribution(
        "linnix-plugin-blade",
        licence="LicenseRef-Linnix-Enterprise",
        requires=["linnix-core", "linnix_plugin.enterprise>=0.1"],
        files={
            "LICENSE": "LicenseRef-Linnix-Enterprise",
            "src/linnix_plugin_blade/__init__.py": "import torch, linnix_plugin_enterprise\n",
            "models/blade.safetensors": "weights",
            "notebooks/train.ipynb": "{}",
            "big.bin": "x" * 5000,
        },
    )
    made.write("linnix-audit.toml", '[limits]\nfile = "4KB"\n')
    made.commit()
    return made


@pytest.fixture
def audit(made):
    """Run ``linnix audit`` on the made repository; its output, its exit code is expected."""

    def run(kind, *args, code=None, root=None):
        result = CliRunner().invoke(command, [kind, str(root or made.root), *map(str, args)])
        got = getattr(result.exception, "exit_code", result.exit_code)
        assert code is None or got == code, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture
def wheel(tmp_path):
    """Write a wheel with these files, and return the folder that it is in."""

    def write(metadata, **files):
        folder = tmp_path / "wheels"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "made-1-py3-none-any.whl", "w") as archive:
            archive.writestr("made-1.dist-info/METADATA", "Metadata-Version: 2.4\n" + metadata)
            for name, content in files.items():
                archive.writestr(name.replace("__", "/", 1), content)
        return folder

    return write
