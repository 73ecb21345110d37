"""How often a rule may raise an alert about one executable."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["MAX_SUBJECTS", "Cooldowns"]

#: Executables about which one rule raises alerts within a cooldown. Whoever copies a program
#: under ever new names raises as many, and no more.
MAX_SUBJECTS = 16


class Cooldowns:
    """Times are those of the records, so that a replay raises the same alerts.

    >>> cooldowns = Cooldowns(10)
    >>> [cooldowns.admit("rule", "/bin/sh", now) for now in (100, 105, 109, 110)]
    [1, 0, 0, 3]
    """

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        #: For each rule that matched, by executable: when its alert was, and matches since.
        self._latest: dict[Hashable, dict[str, tuple[int, int]]] = {}

    def admit(self, rule: Hashable, exe: str, now_ns: int) -> int:
        """The matches that an alert is now to be raised for, or 0 if there is to be none."""
        latest = self._latest.setdefault(rule, {})
        if exe in latest:
            alert_ns, silenced = latest[exe]
            if self._lasts(alert_ns, now_ns):
                latest[exe] = alert_ns, silenced + 1
                return 0
            latest[exe] = now_ns, 0
            return silenced + 1
        if len(latest) >= MAX_SUBJECTS:
            for other in [o for o, (ns, _) in latest.items() if not self._lasts(ns, now_ns)]:
                del latest[other]
            if len(latest) >= MAX_SUBJECTS:
                return 0
        latest[exe] = now_ns, 0
        return 1

    def _lasts(self, alert_ns: int, now_ns: int) -> bool:
        # Also where the clock was set back, but not by more than the cooldown itself.
        return abs(now_ns - alert_ns) < self._length_ns
