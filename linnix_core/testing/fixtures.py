"""Pytest fixtures for plugin authors; pytest loads them wherever ``linnix-core`` is installed.

Each is a factory. What it makes is cleaned up when the test ends.
"""

# Every pytest run of the environment imports this module, maybe before coverage begins to
# measure: so it imports nothing of the core before a test asks for it.

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from linnix_core.agent import Agent
    from linnix_core.context import Context
    from linnix_core.records import Record

#: Seconds for a run to have taken in the records that a test gives it.
_PATIENCE_S = 60.0


@pytest.fixture
def linnix_context(tmp_path: Path) -> Callable[..., Context]:
    """Make a `Context` as a run would: ``linnix_context("handlers.jsonl", clock=…)``."""
    from linnix_core.context import Context
    from linnix_core.incidents import IncidentView
    from linnix_core.processes import ProcessView

    def make(component: str = "handlers.test", **parts: Any) -> Context:
        parts.setdefault("processes", ProcessView())
        parts.setdefault("incidents", IncidentView())
        return Context(
            component=component,
            logger=logging.getLogger(f"linnix.{component}"),
            host="testhost",
            run_id="testrun",
            data_dir=tmp_path / "data" / component,
            **parts,
        )

    return make


@pytest.fixture
def linnix_records() -> Callable[..., list[Record]]:
    """Make realistic records, stamped as handlers see them: ``linnix_records(1000, seed=7)``.

    Equal arguments make equal records; more of them begin with the same ones.
    """

    def make(count: int = 1000, *, seed: int = 0) -> list[Record]:
        from linnix_core.testing.records import realistic_records

        return realistic_records(count, seed)

    return make


@pytest.fixture
def linnix_distribution(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Install a fake distribution for this test, and return the folder that it is in.

        folder = linnix_distribution(
            "linnix-plugin-fake",
            entry_points={"linnix.handlers": {"fake": "fake:Fake"}},
            modules={"fake.py": "class Fake: ..."},
        )
        catalog = Catalog.scan([str(folder)])

    Takes what `linnix_core.testing.distributions.write_distribution` takes.
    """
    from linnix_core.testing.distributions import on_path, write_distribution

    with contextlib.ExitStack() as cleanup:
        numbers = itertools.count()

        def install(*args: Any, **parts: Any) -> Path:
            folder = tmp_path / "distributions" / str(next(numbers))
            write_distribution(folder, *args, **parts)
            cleanup.enter_context(on_path(folder))
            return folder

        yield install


@pytest.fixture
def linnix_runtime(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Start a real agent with the given plugins and no others, and return it.

        agent = linnix_runtime(
            handlers={"mine": MyHandler},
            options={"handlers.mine": {"path": "x", "queue": 8}},
            records=linnix_records(),
        )
        assert agent.wait_idle(10)

    ``collectors``, ``handlers``, ``reasoners`` and ``deployers`` map names to classes, or
    to objects that were built already and take no options. ``options`` are the tables of
    ``linnix.toml``, reserved keys included, and ``agent`` is its ``[agent]``; they go
    through such a file, so that a mistake raises what a person would see. ``records`` come
    from a collector called ``given``, which is there also when there is no other; they
    are all collected when the agent is returned. At the end of the test it is stopped.
    """
    with contextlib.ExitStack() as cleanup:
        numbers = itertools.count()

        def run(**parts: Any) -> Agent:
            folder = tmp_path / "runtime" / str(next(numbers))
            folder.mkdir(parents=True)
            return cleanup.enter_context(_running(folder, **parts))

        yield run


@contextlib.contextmanager
def _running(
    folder: Path,
    *,
    collectors: Mapping[str, Any] | None = None,
    handlers: Mapping[str, Any] | None = None,
    reasoners: Mapping[str, Any] | None = None,
    deployers: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    agent: Mapping[str, Any] | None = None,
    records: Sequence[Record] = (),
) -> Iterator[Agent]:
    import attrs

    from linnix_core.agent import Agent
    from linnix_core.config import read
    from linnix_core.plan import Plan
    from linnix_core.plugins import PluginHost
    from linnix_core.testing.distributions import catalog_of
    from linnix_core.testing.records import GivenRecords

    source = GivenRecords(records)
    feeding = {"given": source} if records or not collectors else {}
    given = {
        "collectors": {**(collectors or {}), **feeding},
        "handlers": handlers or {},
        "reasoners": reasoners or {},
        "deployers": deployers or {},
    }
    file = _write_toml(folder / "linnix.toml", given, options or {}, agent or {})
    settings = read(file, environ={})
    host = PluginHost(
        catalog_of(given),
        data_dir=folder / "data",
        start_timeout_s=settings.agent.start_timeout_s,
    )
    plan = Plan(components=settings.components)
    # As root, the process to become another user would be that of all the tests.
    kept = attrs.evolve(settings.agent, drop_privileges=False)
    with Agent(plan, host, settings=kept, hostname="testhost") as running:
        if feeding and not source.collected.wait(_PATIENCE_S):
            raise TimeoutError("the records that were given have not been collected")
        yield running


def _write_toml(
    file: Path,
    given: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
    agent: Mapping[str, Any],
) -> Path:
    import tomli_w

    tables: dict[str, Any] = {"agent": dict(agent)}
    for kind, plugins in given.items():
        tables[kind] = {name: dict(options.get(f"{kind}.{name}", {})) for name in plugins}
    strangers = options.keys() - {
        f"{kind}.{name}" for kind, names in given.items() for name in names
    }
    if strangers:
        raise ValueError(f"options for {', '.join(sorted(strangers))}, which was not given")
    file.write_text(tomli_w.dumps(_as_toml(tables)), encoding="utf-8")
    return file


def _as_toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_toml(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_toml(item) for item in value]
    return str(value) if isinstance(value, Path) else value
