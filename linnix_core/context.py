"""What a plugin may touch: its `Context`, with the state of others, and a collector's `Sink`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import attrs

from linnix_core.errors import AgentStopped

if TYPE_CHECKING:
    from linnix_core.bundle import Bundle
    from linnix_core.incidents import IncidentView
    from linnix_core.processes import ProcessView
    from linnix_core.records import (
        Alert,
        Deployment,
        Feedback,
        Metric,
        Mount,
        Query,
        Record,
        Result,
    )

__all__ = ["Clock", "ComponentStatus", "Context", "Sink", "State"]


State: TypeAlias = Literal["available", "running", "degraded", "unavailable", "failed", "stopped"]


@attrs.frozen
class ComponentStatus:
    """How a component is: what ``linnix plugins list`` and every view of a run show.

    ``code`` is the reason as a word for programs, ``reason`` as a sentence for people.
    ``counters`` holds ``received handled dropped queued failures`` where they apply.
    """

    component: str
    kind: str
    name: str
    state: State
    code: str = ""
    reason: str = ""
    hint: str | None = None
    plugin: str = ""
    distribution: str = ""
    version: str = ""
    limits: tuple[str, ...] = ()
    counters: Mapping[str, int] = attrs.field(factory=dict)


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, of no particular origin."""
        ...


class Sink(Protocol):
    """Where a collector puts its records. Safe to use from several threads."""

    def emit(self, record: Record) -> None:
        """Hand over one record. Prefer `emit_many`: a batch costs hardly more than one."""
        ...

    def emit_many(self, records: Sequence[Record]) -> None:
        """Hand over records in their order. May wait or drop, as ``overflow`` says."""
        ...

    def lost(self, why: str, count: int = 1) -> None:
        """Count records that never came to be: ``unreadable``, ``truncated`` …"""
        ...

    def balance(self, emitted: int, received: int, lost: Mapping[str, int]) -> None:
        """State the account of a source that counts for itself, since it began.

        Of ``emitted`` records, ``received`` were handed to this sink before the call and
        the others are in ``lost`` by reason (``ring_full``, ``throttled`` …), so that
        ``emitted == received + sum(lost.values())``. What is stated here is not counted
        with `lost`. A `Loss` record of each window shows it, also where nothing was lost.
        """
        ...


def _no_alerts(alert: Alert) -> None:
    raise AgentStopped("alerts can be submitted to a running agent only")


def _no_feedback(feedback: Feedback) -> None:
    raise AgentStopped("feedback can be given to a running agent only")


def _no_history(query: Query) -> Result | None:
    return None


def _no_deployment(name: str) -> Deployment | None:
    return None


@attrs.define(frozen=True, kw_only=True)
class Context:
    """What a component may touch; nothing else of the core is reachable.

    Outside of a run (a command that uses one plugin) the views are empty and `submit`
    raises `AgentStopped`.
    """

    #: ``handlers.jsonl``: kind and name as in the configuration.
    component: str
    logger: logging.Logger
    #: Set when the run ends.
    stop: threading.Event = attrs.field(factory=threading.Event)
    clock: Clock = attrs.field(factory=lambda: time)
    host: str = ""
    run_id: str = ""
    #: The process table, read-only: every answer is a copy.
    processes: ProcessView
    #: Incidents of this run, read-only.
    incidents: IncidentView
    #: State, reason and counters of every component of this run.
    components: Callable[[], Sequence[ComponentStatus]] = attrs.field(default=lambda: ())
    #: Ask whoever keeps history; None if nobody does.
    query: Callable[[Query], Result | None] = attrs.field(default=_no_history)
    #: A deployment by its name, or None.
    deployment: Callable[[str], Deployment | None] = attrs.field(default=_no_deployment)
    #: Raise an alert from anywhere; never blocks.
    submit: Callable[[Alert], None] = attrs.field(default=_no_alerts)
    #: Pass on what a person says of an incident; raises `LinnixError` for what is none.
    feedback: Callable[[Feedback], None] = attrs.field(default=_no_feedback)
    #: Have an incident of this run explained once more; False where it is not known.
    explain: Callable[[str], bool] = attrs.field(default=lambda _incident: False)
    #: An incident of this run as a `Bundle`, with its alerts as far as somebody keeps
    #: history; None where it is not known.
    bundle: Callable[[str], Bundle | None] = attrs.field(default=lambda _incident: None)
    #: What every ``linnix_metrics`` says now, labelled with its ``component``, and the
    #: agent's own numbers. Asks them all: for whoever exports metrics, seldom.
    metrics: Callable[[], Sequence[Metric]] = attrs.field(default=lambda: ())
    #: What every ``linnix_http`` offers to whoever serves HTTP.
    mounts: Callable[[], Sequence[Mount]] = attrs.field(default=lambda: ())
    _data_dir: Path = attrs.field(alias="data_dir")

    @property
    def data_dir(self) -> Path:
        """A folder of the component's own that outlives the run; made on first use, 0700."""
        # One by one: mkdir would give its mode to the last of several only.
        for folder in (self._data_dir.parent, self._data_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._data_dir
