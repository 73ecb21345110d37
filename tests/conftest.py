"""What the core's tests share: plugins without distributions, agents, a journal, a clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from linnix_core.agent import Agent
from linnix_core.catalog import Catalog
from linnix_core.config import AgentSettings, ComponentSettings, Reserved
from linnix_core.plan import Plan
from linnix_core.plugins import Component, PluginHost
from linnix_core.testing import distributions

#: Seconds after which something that a test waits for will not happen any more.
HANG_S = 60.0


def catalog_of(plugins: Mapping[str, Any]) -> Catalog:
    """A catalog of classes by ``kind.name``."""
    by_kind: dict[str, dict[str, Any]] = {}
    for path, plugin in plugins.items():
        kind, name = path.split(".")
        by_kind.setdefault(kind, {})[name] = plugin
    return distributions.catalog_of(by_kind)


class Journal:
    """What plugins did, in the order in which they did it, from any thread."""

    def __init__(self) -> None:
        self._entries: list[Any] = []
        self._changed = threading.Condition()

    def note(self, entry: Any) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    @property
    def entries(self) -> list[Any]:
        with self._changed:
            return list(self._entries)

    def count(self, entry: Any) -> int:
        return self.entries.count(entry)

    def wait_for(self, entry: Any, times: int = 1) -> bool:
        """Wait until the entry is there; whether it came."""
        return self.wait_until(lambda entries: entries.count(entry) >= times)

    def wait_until(self, condition: Callable[[list[Any]], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._entries), HANG_S)


class FakeClock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time_ns(self) -> int:
        return round(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """The command line configures the logger of Linnix for good: not for the next test."""
    logger = logging.getLogger("linnix")
    yield
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """What a hanging plugin waits for: it comes when the test is over."""
    over = threading.Event()
    yield over
    over.set()


@pytest.fixture
def make_catalog() -> Callable[[Mapping[str, Any]], Catalog]:
    """``make_catalog({"handlers.memory": Memory})``"""
    return catalog_of


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Callable[..., PluginHost]]:
    """``make_host({"handlers.memory": Memory})``; or a catalog in place of the classes."""
    made: list[PluginHost] = []

    def make(
        plugins: Mapping[str, Any] | Catalog, *, start_timeout_s: float = HANG_S
    ) -> PluginHost:
        catalog = plugins if isinstance(plugins, Catalog) else catalog_of(plugins)
        host = PluginHost(catalog, data_dir=tmp_path / "data", start_timeout_s=start_timeout_s)
        made.append(host)
        return host

    yield make
    for host in made:
        host.stop(time.monotonic())


@pytest.fixture
def make_component(make_host: Callable[..., PluginHost]) -> Callable[[str, type], Component]:
    """A started component: ``make_component("handlers.memory", Memory)``."""

    def make(path: str, cls: type) -> Component:
        kind, name = path.split(".")
        return make_host({path: cls}).open(kind, name)  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_agent(make_host: Callable[..., PluginHost]) -> Iterator[Callable[..., Agent]]:
    """An agent, not started, that runs plugins in the order in which they are given.

    ``tables`` holds reserved and own keys by ``kind.name``, and names what is to run of a
    whole catalog; ``ladder`` names the collectors of which one is to run, ``origins`` who
    asked for a component.
    """
    made: list[Agent] = []

    def make(
        plugins: Mapping[str, Any] | Catalog,
        *,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        ladder: Sequence[str] = (),
        origins: Mapping[str, str] | None = None,
        start_timeout_s: float = HANG_S,
        clock: Any = time,
        **settings: Any,
    ) -> Agent:
        tables = tables or {}
        given = () if isinstance(plugins, Catalog) else tuple(plugins)
        paths = [path for path in dict.fromkeys((*given, *tables)) if path not in ladder]
        origins = {**dict.fromkeys(ladder, "default"), **(origins or {})}

        def component(path: str) -> ComponentSettings:
            kind, name = path.split(".")
            keys = dict(tables.get(path, {}))
            reserved = {key: keys.pop(key) for key in list(keys) if hasattr(Reserved(), key)}
            return ComponentSettings(
                kind=kind,  # type: ignore[arg-type]
                name=name,
                reserved=Reserved(**reserved),
                options=keys,
                origin=origins.get(path, "configuration"),  # type: ignore[arg-type]
            )

        settings.setdefault("stop_timeout_s", HANG_S)
        settings.setdefault("linger_ms", 1)
        # As root, the process to become another user would be that of all the tests.
        settings["drop_privileges"] = False
        agent = Agent(
            Plan(
                components=tuple(map(component, paths)),
                ladder=tuple(map(component, ladder)),
            ),
            make_host(plugins, start_timeout_s=start_timeout_s),
            settings=AgentSettings(**settings),
            clock=clock,
            hostname="testhost",
        )
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.stop()


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Install distributions into one folder, first on ``sys.path``, and return that.

    ``install("linnix-plugin-x", {"handlers.x": "x:X"}, modules={"x": "class X: …"})``
    """
    folder = tmp_path / "site-packages"
    folder.mkdir()

    def write(
        name: str,
        entry_points: Mapping[str, str],
        *,
        modules: Mapping[str, str] | None = None,
        requires: Sequence[str] | None = None,
    ) -> Path:
        groups: dict[str, dict[str, str]] = {}
        for path, value in entry_points.items():
            kind, _, entry_name = path.partition(".")
            groups.setdefault(f"linnix.{kind}", {})[entry_name] = value
        files = {f"{module}.py": source for module, source in (modules or {}).items()}
        return distributions.write_distribution(
            folder, name, entry_points=groups, modules=files, requires=requires
        )

    with distributions.on_path(folder):
        yield write
