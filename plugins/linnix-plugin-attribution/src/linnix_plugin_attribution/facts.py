"""What attribution adds to an incident: numbers, and groups as single harmless words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from linnix_core import Fact
from linnix_plugin_attribution.groups import Unit
from linnix_plugin_attribution.ledger import Attribution
from linnix_plugin_attribution.rounds import Resource

__all__ = ["facts_about"]

_NAMES: dict[Resource, str] = {"cpu": "CPU", "io": "I/O", "memory": "memory"}

#: Groups that are named in one direction.
MAX_NAMED = 2

#: Characters of a group in the name of a fact, of which the core keeps 40.
MAX_WORD = 24

_OTHER = re.compile(r"[^A-Za-z0-9_.@:-]")


def facts_about(
    unit: Unit | None, rows: Iterable[Attribution], *, process: str | None
) -> Iterator[Fact]:
    """How long a group waited and made others wait; without a group, who did most of it.

    ``process`` is the id of the process that the group is known by, for all these facts.
    """
    rows = list(rows)
    for resource, what in _NAMES.items():
        of_it = [row for row in rows if row.resource == resource]
        if unit is None:
            yield from _named(f"{what} stall by", of_it, _offender, None)
            continue
        caused = [row for row in of_it if row.offender == unit]
        if caused:
            yield Fact(f"{what} stall in other groups", _seconds(caused), "s", process)
            groups = len({row.victim for row in caused})
            yield Fact(f"groups that it makes wait, {what}", groups, "groups", process)
            yield from _named(f"{what} stall in", caused, _victim, process)
        suffered = [row for row in of_it if row.victim == unit]
        if suffered:
            waited = {row.event_id: row.stall_us for row in suffered}
            yield Fact(f"{what} stall of its group", sum(waited.values()) / 1e6, "s", process)
            yield from _named(f"{what} stall by", suffered, _offender, process)


def _named(
    what: str,
    rows: Iterable[Attribution],
    side: Callable[[Attribution], Unit],
    process: str | None,
) -> Iterator[Fact]:
    sums: Counter[Unit] = Counter()
    for row in rows:
        sums[side(row)] += row.attributed_us
    for unit, sum_us in sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED]:
        yield Fact(f"{what} {_word(unit)}", round(sum_us / 1e6, 3), "s", process)


def _offender(row: Attribution) -> Unit:
    return row.offender


def _victim(row: Attribution) -> Unit:
    return row.victim


def _seconds(rows: Iterable[Attribution]) -> float:
    return round(sum(row.attributed_us for row in rows) / 1e6, 3)


def _word(unit: Unit) -> str:
    """The last part of its name, in letters that cannot pretend to be a sentence."""
    last = unit.name.rstrip("/").rpartition("/")[2] or unit.name
    word = _OTHER.sub("?", last)
    return word if len(word) <= MAX_WORD else f"{word[: MAX_WORD - 2]}.."
