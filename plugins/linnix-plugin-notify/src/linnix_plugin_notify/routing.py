"""Who is told: the first route that fits an incident, and how many it may bring in an hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import attrs

from linnix_core import SEVERITIES, Incident, Severity

__all__ = ["Route", "Router"]

HOUR_NS = 3600 * 10**9


def _named(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip():
        raise ValueError(f"{attribute.name} must not be empty")


def _at_least_one(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"{attribute.name} must be at least 1, got {value}")


@attrs.frozen(kw_only=True)
class Route:
    """One ``[[handlers.NAME.routes]]``: incidents that match all of it go to ``to``."""

    name: str = attrs.field(validator=_named, metadata={"help": "what it is called"})
    to: str = attrs.field(
        default="", metadata={"help": "where to; empty: where the component sends by default"}
    )
    tell: bool = attrs.field(
        default=True, metadata={"help": "false: nobody is told, also not by later routes"}
    )
    min_severity: Severity = attrs.field(
        default="info", metadata={"help": "incidents of at least this severity"}
    )
    classes: tuple[
        Literal["fork_storm", "short_job_flood", "runaway_tree", "cpu_spin", "io_saturation",
                "oom_risk", "normal", "none"], ...,
    ] = attrs.field(
        default=(), metadata={"help": "incidents of these classes; 'none' is without a class"}
    )  # fmt: skip
    cgroups: tuple[str, ...] = attrs.field(
        default=(), metadata={"help": "incidents in cgroups that match one of these patterns"}
    )
    labels: dict[str, str] = attrs.field(
        factory=dict, metadata={"help": "incidents with all of these labels; values are patterns"}
    )
    per_hour: int = attrs.field(
        default=30,
        validator=_at_least_one,
        metadata={"help": "incidents told in an hour at most; more wait, or are over by then"},
    )

    def matches(self, incident: Incident) -> bool:
        """Whether the incident, as it is now, is one for this route."""
        if SEVERITIES.index(incident.severity) < SEVERITIES.index(self.min_severity):
            return False
        if self.classes and (incident.class_ or "none") not in self.classes:
            return False
        cgroup = incident.subject.cgroup or ""
        if self.cgroups and not any(fnmatchcase(cgroup, pattern) for pattern in self.cgroups):
            return False
        labels = incident.labels or {}
        return all(
            name in labels and fnmatchcase(labels[name], pattern)
            for name, pattern in self.labels.items()
        )


class Router:
    """Chooses the route, and keeps each to its number in any hour."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._by_name = {route.name: route for route in self.routes}
        self._told: dict[str, deque[int]] = {route.name: deque() for route in self.routes}

    def choose(self, incident: Incident) -> Route | None:
        """The first route that matches; None where nobody is to be told."""
        route = next((route for route in self.routes if route.matches(incident)), None)
        return route if route is not None and route.tell else None

    def remember(self, told: Iterable[tuple[str, int]]) -> None:
        """Routes and times of what was told before, in any order."""
        for name, ns in sorted(told, key=lambda pair: pair[1]):
            self.spend(name, ns)

    def spend(self, name: str, now_ns: int) -> None:
        """Count one incident that is told."""
        if name in self._told:
            self._told[name].append(now_ns)

    def free_ns(self, name: str, now_ns: int) -> int:
        """From when on the route may bring another one: now, or later."""
        told = self._told.get(name)
        if told is None:
            return now_ns  # of a configuration before; those are few
        while told and not 0 <= now_ns - told[0] < HOUR_NS:
            told.popleft()
        limit = self._by_name[name].per_hour
        return now_ns if len(told) < limit else told[len(told) - limit] + HOUR_NS
