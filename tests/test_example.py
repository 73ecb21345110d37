"""The example of a plugin, as its user meets it: installed by pip, deployed, asked, taken away.

Everything is real: a fresh environment, a server process, processes that fork, a recording.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from linnix_core.testing.waiting import eventually

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="the example needs pidfds"),
]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = "examples/linnix-plugin-parrot"

#: Seconds after which something that the test waits for will not happen any more.
HANG_S = 120

#: A tenth of the default, so that a slow machine gets there too.
RULES = """\
- name: fork_storm
  severity: high
  detector: fork_burst
  threshold: 50
  window_seconds: 5
  cooldown: 60
"""
CHILDREN = 120

MODEL = {"fork_storm": {"confidence": 77, "facts": 1}}

#: Forks so many children when it hears a word; they all end when its standard input does.
FORKER = f"""
import os, sys
sys.stdin.readline()
reader, writer = os.pipe()
for _ in range({CHILDREN}):
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
sys.stdin.read()
os.close(writer)
for _ in range({CHILDREN}):
    os.wait()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the default set and the example, built from copies."""
    folder = tmp_path_factory.mktemp("example")
    checkout = shutil.copytree(
        ROOT,
        folder / "checkout",
        # What begins with a dot and what Python leaves behind is no source.
        ignore=shutil.ignore_patterns(".*", "~", "__pycache__", "build", "dist", "*.egg-info"),
    )
    listed = (checkout / "requirements.txt").read_text(encoding="utf-8").splitlines()
    paths = [line.removeprefix("-e ") for line in listed if line.startswith("-e ")]
    packages = [str(checkout / path) for path in [*paths, f"{EXAMPLE}[test]"]]
    environment = folder / "venv"
    if importlib.util.find_spec("uv"):
        venv_options = ["--without-pip"]
        # Without --no-sources, uv would make the members of its workspace editable.
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-sources"]
        install += ["--python", str(environment / "bin" / "python")]
    else:
        venv_options = []
        install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", *venv_options, str(environment)], check=True)
    subprocess.run([*install, *packages], check=True)
    shutil.rmtree(checkout)  # what runs from here on comes out of the wheels
    return environment / "bin"


@pytest.fixture
def linnix(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """The command line of ``linnix`` in the fresh environment; it runs in ``tmp_path``.

    A ``linnix.toml`` lies there, so the run and the command agree on where things are.
    """
    for name in [name for name in os.environ if name.startswith(("LINNIX", "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linnix.toml").write_text(f"[agent]\ndata_dir = {json.dumps(str(tmp_path / 'd'))}")

    def command(*arguments: str) -> list[str]:
        return [str(installed / "linnix"), *arguments]

    return command


def output_of(command: list[str]) -> str:
    """What a command prints that has to end well."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def forker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a word to fork; whatever happens, its children end."""
    command = [sys.executable, "-c", FORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        yield process
        process.stdin.close()
        assert process.wait(HANG_S) == 0


class Recording:
    """The records of a run, read while it writes them."""

    def __init__(self, path: Path, run: subprocess.Popen[bytes]) -> None:
        self._path = path
        self._run = run
        self._position = 0

    def next(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next record that is wanted, once it has been written."""

        def found() -> dict[str, Any] | None:
            over = self._run.poll() is not None
            for record in self._written():
                if wanted(record):
                    return record
            assert not over, "the run has ended without it"
            return None

        record = eventually(found, within_s=HANG_S)
        assert record is not None
        return record

    def _written(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    return
                self._position += len(line)
                yield json.loads(line)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that is interrupted in the end, as by ctrl-C, and has to stop well."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as run,
    ):
        try:
            yield run
            run.send_signal(signal.SIGINT)
            code = run.wait(HANG_S)
        except BaseException:
            run.kill()
            raise
    assert code == 0, log.read_text()


@contextmanager
def deployed(
    linnix: Callable[..., list[str]], file: Path, data_dir: Path
) -> Iterator[dict[str, Any]]:
    """The model, served until the end of the block, as the deployment that was recorded."""
    output_of(linnix("parrot", "deploy", str(file)))
    try:
        stored = json.loads((data_dir / "deployments.json").read_text(encoding="utf-8"))
        (deployment,) = stored["deployments"]
        yield deployment
    finally:
        output_of(linnix("parrot", "undeploy"))


def runs(process: psutil.Process) -> bool:
    """Whether the process is there and not merely waiting to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_is_found_without_being_imported(linnix: Callable[..., list[str]]) -> None:
    listed = json.loads(output_of(linnix("plugins", "list", "--json")))
    states = {(plugin["kind"], plugin["name"]): plugin["state"] for plugin in listed}

    for kind in ("deployers", "reasoners", "commands"):
        assert states[kind, "parrot"] == "available"
    assert set(states.values()) == {"available"}
    assert "parrot" in output_of(linnix("--help"))


def test_a_deployed_model_explains_a_fork_storm(
    linnix: Callable[..., list[str]], forker: subprocess.Popen[str], tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    command = linnix(
        "run",
        *("--collector", "psutil", "--set", "collectors.psutil.interval=1"),
        *("--handler", "rules:rules.yaml", "--handler", "jsonl:records.jsonl"),
        *("--reasoner", "parrot", "--duration", "5m"),
    )

    with deployed(linnix, tmp_path / "model.json", tmp_path / "d") as deployment:
        server = psutil.Process(deployment["details"]["pid"])
        assert "linnix_plugin_parrot.server" in server.cmdline()

        with running(command, tmp_path / "log") as run:
            recording = Recording(tmp_path / "records.jsonl", run)
            # What runs when it is first noticed counts for no rule: so look first, fork then.
            recording.next(lambda record: record.get("pid") == forker.pid)
            assert forker.stdin is not None
            forker.stdin.write("go\n")
            forker.stdin.flush()
            insight = recording.next(lambda record: record["type"] == "insight")

        assert insight["reasoner"] == "parrot"
        assert insight["class"] == "fork_storm"
        assert insight["confidence"] == 0.77
        assert len(insight["facts"]) == 1
        # Stopping an agent does not undeploy.
        assert runs(server)

    assert not runs(server)


def test_without_a_deployment_the_run_says_what_to_type(
    linnix: Callable[..., list[str]],
) -> None:
    ended = subprocess.run(
        linnix("run", "--reasoner", "parrot", "--duration", "5m"),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert ended.returncode == 3
    assert "linnix parrot deploy FILE --name parrot" in ended.stderr


def test_its_own_tests_pass_beside_what_is_installed(
    linnix: Callable[..., list[str]], installed: Path, tmp_path: Path
) -> None:
    """It conforms, and it declares what its tests need."""
    tests = shutil.copytree(ROOT / EXAMPLE, tmp_path / "example", ignore=lambda *_: ["src"])
    ended = subprocess.run(
        [str(installed / "pytest"), "-q", str(tests)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout
