"""What became of the lines of a recording, counted and in words."""

from __future__ import annotations

from typing import Any

import attrs

from linnix_core import printable

__all__ = ["Tally"]


@attrs.define
class Tally:
    """Counts what is played and what is not, and what is not even there.

    The numbers of a run go up by one, so those between the first and the last that have not
    been met are records that the recording has lost.
    """

    played: int = 0
    #: Alerts, incidents, insights and feedback.
    results: int = 0
    unreadable: int = 0

    _where: str = ""
    _run_id: str | None = None
    _first: int = 0
    _last: int = 0
    _met: int = 0
    _missing: int = 0

    def meet(self, record: Any) -> None:
        """Take note of a line that holds a record of any type."""
        seq = record.seq
        if record.run_id != self._run_id:
            self._missing = self.missing
            self._run_id, self._first, self._last, self._met = record.run_id, seq, seq, 1
            return
        self._met += 1
        if seq > self._last:
            self._last = seq
        elif seq < self._first:
            self._first = seq

    def refuse(self, where: str, why: str) -> None:
        """Take note of something that could not be read."""
        self.unreadable += 1
        if self.unreadable == 1:
            self._where = f"{where}: {printable(why, 200)}"

    @property
    def missing(self) -> int:
        """Records between the first and the last of each run that are not in the recording."""
        if self._run_id is None:
            return 0
        return self._missing + max(self._last - self._first + 1 - self._met, 0)

    def troubles(self) -> tuple[str, ...]:
        """What should have been played and could not be, in sentences."""
        troubles = []
        if self.unreadable:
            troubles.append(
                f"lines that could not be read: {self.unreadable}, the first is {self._where}"
            )
        if self.missing:
            troubles.append(
                f"records that are missing in the recording: {self.missing}, so that alerts may "
                "differ from those of then"
            )
        return tuple(troubles)

    def summary(self) -> str:
        """What was played, and what never is, in a sentence."""
        return (
            f"played {self.played} records, and not {self.results} notices, which are results "
            "of then"
        )
