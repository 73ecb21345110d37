"""Alerts with one fingerprint become one incident, with a beginning and an end."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

from linnix_core.escape import printable
from linnix_core.origins import origin_of, tree_around
from linnix_core.processes import ProcessView
from linnix_core.records import SEVERITIES, Alert, Evidence, Incident

__all__ = ["IncidentBook", "IncidentView", "fingerprint"]

#: Nanoseconds without an alert after which an incident is over.
QUIET_NS = 300 * 10**9

#: Nanoseconds between two updates of one incident: a storm of alerts is one message.
UPDATE_EVERY_NS = 10 * 10**9

#: Nanoseconds after its end in which an incident that comes back is the same one: whoever was
#: told of it knows, and a rule that flaps calls nobody twice.
REOPEN_NS = 900 * 10**9

MAX_OPEN = 256
MAX_CLOSED = 1024


def fingerprint(alert: Alert) -> str:
    """What tells incidents apart: class (or rule, without a class), root executable, cgroup.

    The subject of an alert is the root of the tree that offends, so its executable is the
    root executable.
    """
    subject = alert.subject
    parts = (
        alert.class_ or f"rule {alert.rule}",
        subject.exe or subject.comm,
        subject.cgroup or "",
    )
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


@attrs.define
class _Open:
    """An incident, open or closed, and what its rules measured last."""

    incident: Incident
    evidence: dict[str, tuple[Evidence, ...]]
    published_ns: int


class IncidentBook:
    """Opens, updates and closes incidents; one thread writes, views read.

    Times are those of the alerts, so that a replay tells the same story.
    """

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        host: str = "",
        run_id: str = "",
        boot_id: str = "",
        processes: ProcessView | None = None,
    ) -> None:
        self._new_id = new_id
        self._processes = processes if processes is not None else ProcessView()
        self._of_run: dict[str, Any] = {"host": host, "run_id": run_id, "boot_id": boot_id}
        self._open: dict[str, _Open] = {}
        self._closed: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self.view = IncidentView(self)

    def add(self, alert: Alert) -> list[Incident]:
        """Take an alert in; the incidents that are to be published now, unstamped."""
        mark = fingerprint(alert)
        with self._lock:
            published = self._close_quiet(alert.ts_ns)
            known = self._open.get(mark)
            if known is None:
                if len(self._open) >= MAX_OPEN:
                    oldest = min(self._open, key=lambda m: self._open[m].incident.updated_ns)
                    published.append(self._close(oldest, alert.ts_ns))
                published.append(self._reopen(mark, alert) or self._begin(mark, alert))
            elif (update := self._update(known, alert)) is not None:
                published.append(update)
            return published

    def close_quiet(self, now_ns: int) -> list[Incident]:
        """The incidents that are over at ``now_ns``, closed."""
        with self._lock:
            return self._close_quiet(now_ns)

    @property
    def next_close_ns(self) -> int | None:
        """When the first open incident will be over unless another alert comes."""
        with self._lock:
            quiet = [known.incident.updated_ns + QUIET_NS for known in self._open.values()]
            return min(quiet, default=None)

    def _begin(self, mark: str, alert: Alert) -> Incident:
        incident = Incident(
            fingerprint=mark,
            severity=alert.severity,
            summary=_summary(alert),
            class_=alert.class_,
            subject=alert.subject,
            rules=(alert.rule,),
            evidence=alert.evidence,
            peak=alert.evidence[:1],
            actions=alert.actions,
            opened_ns=alert.ts_ns,
            updated_ns=alert.ts_ns,
            labels=alert.labels,
            id=self._new_id(),
            ts_ns=alert.ts_ns,
            **self._around(alert),
            **self._of_run,
        )
        self._open[mark] = _Open(incident, {alert.rule: alert.evidence}, alert.ts_ns)
        return attrs.evolve(incident)

    def _reopen(self, mark: str, alert: Alert) -> Incident | None:
        """The incident of this fingerprint that was over a short while ago, open again."""
        for known in reversed(self._closed.values()):
            if known.incident.fingerprint == mark:
                break
        else:
            return None
        closed = known.incident
        if closed.closed_ns is None or not 0 <= alert.ts_ns - closed.closed_ns < REOPEN_NS:
            return None
        self._open[mark] = self._closed.pop(closed.id)
        known.incident = attrs.evolve(closed, closed_ns=None, reopened=closed.reopened + 1)
        known.published_ns = alert.ts_ns - UPDATE_EVERY_NS
        return self._update(known, alert)

    def _around(self, alert: Alert) -> dict[str, Any]:
        """The tree around the subject of an alert, and where it came from."""
        if alert.subject.key is None:
            return {}
        tree = tree_around(alert.subject.key, self._processes)
        return {"tree": tree, "origin": origin_of(tree)}

    def _update(self, known: _Open, alert: Alert) -> Incident | None:
        before = known.incident
        worse = SEVERITIES.index(alert.severity) > SEVERITIES.index(before.severity)
        known.evidence[alert.rule] = alert.evidence
        while len(known.evidence) > 16:
            del known.evidence[next(iter(known.evidence))]
        around = self._around(alert) if worse else {}
        known.incident = attrs.evolve(
            before,
            severity=alert.severity if worse else before.severity,
            # The one who makes it worse is the one to look at.
            subject=alert.subject if worse else before.subject,
            summary=_summary(alert) if worse else before.summary,
            change="worse" if worse else "updated",
            rules=tuple(known.evidence),
            evidence=tuple(item for items in known.evidence.values() for item in items)[:64],
            peak=_higher(before.peak, alert.evidence[:1]),
            actions=alert.actions or before.actions,
            alerts=before.alerts + 1,
            updated_ns=max(alert.ts_ns, before.updated_ns),
            ts_ns=alert.ts_ns,
            **around,
        )
        if not worse and alert.ts_ns - known.published_ns < UPDATE_EVERY_NS:
            return None
        known.published_ns = alert.ts_ns
        return attrs.evolve(known.incident)

    def _close_quiet(self, now_ns: int) -> list[Incident]:
        over = [
            mark
            for mark, known in self._open.items()
            if now_ns - known.incident.updated_ns >= QUIET_NS
        ]
        # Whenever somebody looks, it was over then: a replay looks less often.
        return [self._close(mark, self._open[mark].incident.updated_ns + QUIET_NS) for mark in over]

    def _close(self, mark: str, now_ns: int) -> Incident:
        known = self._open.pop(mark)
        known.incident = attrs.evolve(
            known.incident, change="closed", closed_ns=now_ns, ts_ns=now_ns
        )
        self._closed[known.incident.id] = known
        if len(self._closed) > MAX_CLOSED:
            self._closed.popitem(last=False)
        return attrs.evolve(known.incident)


def _higher(peak: tuple[Evidence, ...], measured: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """The largest of each kind of measurement, with one more; bounded as the evidence is."""
    largest = {(item.name, item.unit): item for item in peak}
    for item in measured:
        known = largest.get((item.name, item.unit))
        if known is None or item.value > known.value:
            largest[item.name, item.unit] = item
    return tuple(largest.values())[-16:]


def _summary(alert: Alert) -> str:
    return printable(alert.message, 200)


class IncidentView:
    """Reads the incidents of a run from any thread; every answer is a copy."""

    def __init__(self, book: IncidentBook | None = None) -> None:
        self._book = book

    def open(self) -> list[Incident]:
        """Those that are not over, oldest first."""
        if self._book is None:
            return []
        with self._book._lock:
            return [attrs.evolve(known.incident) for known in self._book._open.values()]

    def recent(self, limit: int = 20) -> list[Incident]:
        """Open and closed ones, the latest first."""
        if self._book is None:
            return []
        with self._book._lock:
            known = (*self._book._open.values(), *self._book._closed.values())
            every = [each.incident for each in known]
        every.sort(key=lambda incident: incident.updated_ns, reverse=True)
        return [attrs.evolve(incident) for incident in every[:limit]]

    def get(self, incident_id: str) -> Incident | None:
        """One by its id."""
        if self._book is None:
            return None
        with self._book._lock:
            if incident_id in self._book._closed:
                return attrs.evolve(self._book._closed[incident_id].incident)
            for known in self._book._open.values():
                if known.incident.id == incident_id:
                    return attrs.evolve(known.incident)
        return None
