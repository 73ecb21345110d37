"""The scripts do what they say, with a real model behind a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHELL = sorted(SCRIPTS.glob("*.sh"))

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """A tiny model that llama.cpp runs."""
    from linnix_plugin_gguf.reading import read_model
    from linnix_plugin_gguf.testing import tiny_checkpoint
    from linnix_plugin_gguf.writing import write_gguf

    folder = tmp_path_factory.mktemp("model")
    model = read_model(tiny_checkpoint(folder / "checkpoint", "qwen2"))
    write_gguf(model, folder / "tiny one.gguf", "F16", name="tiny", progress=lambda *step: None)
    return folder / "tiny one.gguf"


@pytest.fixture
def script(tmp_path):
    """Run a script in a home of its own, with a port of its own."""
    for name in ("bin", "home"):
        (tmp_path / name).mkdir()
    # As pip writes it: its first line says which Python has the packages.
    linnix = tmp_path / "bin" / "linnix"
    linnix.write_text(
        f"#!{sys.executable}\nimport sys\nfrom linnix_core.cli import main\nsys.exit(main())\n"
    )
    linnix.chmod(0o755)
    config = tmp_path / "linnix.toml"
    config.write_text(
        f'[agent]\ndata_dir = "{tmp_path}/data"\n'
        '[deployers.llama-cpp]\ncontext = 16384\nthreads = 1\nserver = "xllamacpp"\n'
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("LLM_", "XDG_", "LINNIX"))},
        "HOME": str(tmp_path / "home"),
        "LINNIX_CONFIG": str(config),
        "LLM_PORT": str(port),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }

    def run(name, *words, **more):
        command = [SCRIPTS / name, *words]
        if name.endswith(".py"):
            command.insert(0, Path(sys.executable))
        return subprocess.run(
            command, env={**env, **more}, text=True, capture_output=True, cwd=tmp_path
        )

    run.port = port
    yield run
    if (tmp_path / "data").exists():
        run("serve_distilled_model.sh", "stop")


@pytest.mark.parametrize("path", [*SHELL, SCRIPTS / ".env.distilled"], ids=lambda path: path.name)
def test_shells_and_shellcheck_have_nothing_to_say(path):
    for shell in ("bash", "sh"):
        subprocess.run([shell, "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt install shellcheck")
    done = subprocess.run(
        ["shellcheck", "-x", path], cwd=SCRIPTS.parent, text=True, stdout=subprocess.PIPE
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_every_script_can_be_run(path):
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize(
    "path", sorted(p for p in SCRIPTS.iterdir() if p.is_file()), ids=lambda path: path.name
)
def test_no_address_is_downloaded_from(path):
    addresses = re.findall(r"https?://[^\s\"'/:}]+", path.read_text())
    assert set(addresses) <= {"http://127.0.0.1"}


def test_a_file_is_served_measured_tested_and_ended(script, gguf):
    done = script("setup-llm.sh", str(gguf))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"http://127.0.0.1:{script.port}/v1" in done.stdout
    again = script("setup-llm.sh", str(gguf))
    assert again.returncode == 0, again.stdout + again.stderr

    found = script("serve_distilled_model.sh", "status")
    assert "linnix-distilled" in found.stdout
    assert "ok" in found.stdout

    measured = script("benchmark_distilled_model.sh", "--requests", "1", "--tokens", "4", "--json")
    assert json.loads(measured.stdout)[0]["name"] == "linnix-distilled", measured.stderr

    endpoint = f"http://127.0.0.1:{script.port}/v1/chat/completions"
    tested = script("test_h200_model.py", LLM_ENDPOINT=endpoint, LLM_MODEL="linnix-distilled")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "of 7 classes right, 0 without a usable answer" in tested.stdout

    assert script("serve_distilled_model.sh", "stop").returncode == 0
    gone = script("serve_distilled_model.sh", "status")
    assert gone.returncode == 1
    untested = script("test_h200_model.py", LLM_ENDPOINT=endpoint, LLM_MODEL="linnix-distilled")
    assert untested.returncode == 1
    assert "7 without a usable answer" in untested.stdout


@pytest.fixture
def calls(tmp_path):
    """A `linnix` that only notes what it is asked to do."""
    path = tmp_path / "noting"
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"with open({str(tmp_path / 'calls')!r}, 'a') as file:\n"
        "    file.write('|'.join(sys.argv[1:]) + '\\n')\n"
    )
    path.chmod(0o755)

    def lines():
        return (tmp_path / "calls").read_text().splitlines()

    lines.path = str(path)
    return lines


def test_a_model_of_the_hub_is_pulled(script, calls):
    done = script("setup-llm.sh", "hf:owner/name/linnix-3b-q5_k_m.gguf", LINNIX=calls.path)
    assert done.returncode == 0, done.stderr
    model = "linnix-3b-q5_k_m"
    assert calls() == [
        f"models|pull|hf:owner/name/{model}.gguf|--id|{model}|--role|incidents",
        f"models|deploy|--as|linnix-distilled|--option|port={script.port}|--|{model}|llama-cpp",
        "models|test|--|linnix-distilled",
    ]


def test_the_demo_model_is_what_is_served_unless_told(script, calls, linnix_distribution, gguf):
    linnix_distribution(
        "linnix-plugin-another-demo",
        entry_points={"linnix_plugin_llama_cpp.models": {"demo": "another_demo:path"}},
        modules={"another_demo.py": f"def path():\n    return {str(gguf)!r}\n"},
    )
    paths = os.pathsep.join(filter(None, sys.path))
    done = script("setup-llm.sh", LINNIX=calls.path, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert calls()[0] == f"models|register|--id|linnix-demo|--role|incidents|--|{gguf}"


def test_help_is_the_beginning_of_the_file(script):
    done = script("setup-llm.sh", "--help")
    assert done.stdout.startswith("Get a model, serve it")
    assert "set -eu" not in done.stdout
