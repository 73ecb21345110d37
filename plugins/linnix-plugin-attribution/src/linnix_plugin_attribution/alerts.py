"""Alerts about stalls, for those who want them: at most one for a pair in a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from linnix_core import Alert, Evidence, Subject, printable
from linnix_plugin_attribution.groups import Unit
from linnix_plugin_attribution.ledger import Attribution
from linnix_plugin_attribution.rounds import Resource

__all__ = ["RULE", "StallAlerts"]

#: The name that these alerts have always had.
RULE = "stall_attribution"

#: Pairs that are left alone at a time; beyond that the first comes again.
MAX_RESTS = 4096

#: Characters of one group's name in a message.
MAX_NAME = 80

_Pair: TypeAlias = tuple[Resource, Unit, Unit]


class StallAlerts:
    """An alert when one group has made another one wait for a while, in every round of it."""

    def __init__(self, *, sustained_ns: int, cooldown_ns: int, threshold_us: int) -> None:
        self._sustained_ns = sustained_ns
        self._cooldown_ns = max(cooldown_ns, 1)
        self._threshold_us = threshold_us
        self._since_ns: dict[_Pair, int] = {}
        self._alerted_ns: OrderedDict[_Pair, int] = OrderedDict()

    def judge(
        self,
        told: Iterable[Attribution],
        seconds: float,
        subject_of: Callable[[Unit], Subject],
    ) -> Iterator[Alert]:
        """Alerts about a round of so many seconds, from what is large enough in it."""
        before, self._since_ns = self._since_ns, {}
        for row in told:
            pair = (row.resource, row.offender, row.victim)
            began_ns = before.get(pair, row.ts_ns - round(seconds * 1e9))
            since_ns = min(began_ns, self._since_ns.get(pair, began_ns))
            self._since_ns[pair] = since_ns
            if row.ts_ns - since_ns < self._sustained_ns or self._rests(pair, row.ts_ns):
                continue
            self._alerted_ns[pair] = row.ts_ns
            self._alerted_ns.move_to_end(pair)
            if len(self._alerted_ns) > MAX_RESTS:
                self._alerted_ns.popitem(last=False)
            yield self._alert(row, subject_of(row.offender))

    def _rests(self, pair: _Pair, now_ns: int) -> bool:
        alerted_ns = self._alerted_ns.get(pair)
        # A clock that was set back must not silence it for longer than it would have.
        return alerted_ns is not None and 0 <= now_ns - alerted_ns < self._cooldown_ns

    def _alert(self, row: Attribution, subject: Subject) -> Alert:
        return Alert(
            rule=RULE,
            severity="medium",
            message=(
                f"{_short(row.victim)} stalled {row.stall_us / 1e3:.0f} ms, "
                f"{row.attributed_us / 1e3:.0f} ms of it attributed to {_short(row.offender)} "
                f"({row.reason})"
            ),
            subject=subject,
            evidence=(
                Evidence("attributed_stall", row.attributed_us / 1e6, "s"),
                Evidence("threshold", self._threshold_us / 1e6, "s"),
                Evidence("victim_stall", row.stall_us / 1e6, "s"),
                Evidence("use_share", round(100 * row.use_share, 1), "%"),
                Evidence("forks", row.forks, "forks"),
                Evidence("short_jobs", row.short_jobs, "jobs"),
            ),
            labels=_labels(row),
            ts_ns=row.ts_ns,
        )


def _short(unit: Unit) -> str:
    return printable(unit.name, MAX_NAME)


def _labels(row: Attribution) -> dict[str, str]:
    both: Mapping[str, str] = {**row.offender.labels("offender"), **row.victim.labels("victim")}
    return {"resource": row.resource, **both}
