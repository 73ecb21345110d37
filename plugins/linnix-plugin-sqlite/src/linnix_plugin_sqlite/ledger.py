"""The restart ledger: what jobs that lived less than a second cost, and who started them."""

from __future__ import annotations

from linnix_core import ProcessEvent
from linnix_plugin_sqlite.living import Living
from linnix_plugin_sqlite.store import MINUTE_NS, Job, JobCost

__all__ = ["OTHERS", "ShortJobs"]

#: The life of a short job, from fork to exit, in nanoseconds.
SHORT_NS = 10**9

#: Kinds of jobs told apart in a minute; names are the processes' own choice, and endless.
MAX_KINDS = 256

#: Stands for the executable and cgroup of all the others.
OTHERS = "(others)"


class ShortJobs:
    """Sums up what is not in the database yet, by minute, parent executable and cgroup.

    What is not known is the empty text.
    """

    def __init__(self) -> None:
        self._costs: dict[Job, JobCost] = {}
        self._minute = -1
        self._kinds: set[tuple[str, str]] = set()

    def add(self, exit_: ProcessEvent, living: Living) -> None:
        """Take in an exit, before it is applied to the living."""
        if exit_.duration_ns is None or exit_.duration_ns >= SHORT_NS:
            return
        # Who forked it: by now the kernel may name somebody else.
        parent = living.parent_of(exit_.key) or exit_.parent_key
        job = self._job(exit_.ts_ns // MINUTE_NS, living.exe_of(parent) or "", exit_.cgroup or "")
        before = self._costs.get(job, JobCost(0, 0, 0))
        self._costs[job] = JobCost(
            before.jobs + 1,
            before.cpu_ns + (exit_.cpu_ns or 0),
            before.unmeasured + (exit_.cpu_ns is None),
        )

    def _job(self, minute: int, parent_exe: str, cgroup: str) -> Job:
        if minute != self._minute:
            self._minute = minute
            self._kinds.clear()
        kind = (parent_exe, cgroup)
        if kind not in self._kinds:
            if len(self._kinds) >= MAX_KINDS:
                return Job(minute, OTHERS, OTHERS)
            self._kinds.add(kind)
        return Job(minute, parent_exe, cgroup)

    @property
    def costs(self) -> dict[Job, JobCost]:
        """What was added since the last `clear`."""
        return self._costs

    def clear(self) -> None:
        """Begin anew: it is in the database."""
        self._costs = {}

    def trim(self) -> None:
        """Give up the oldest minutes where nothing can be stored for long."""
        while len(self._costs) > 16 * MAX_KINDS:
            del self._costs[next(iter(self._costs))]
