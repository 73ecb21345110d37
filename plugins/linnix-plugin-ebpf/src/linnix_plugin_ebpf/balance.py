"""The proof that nothing is missing: the kernel's counters against the records that came."""

from __future__ import annotations

from typing import NamedTuple

from linnix_plugin_ebpf.programs import Programs, Totals

__all__ = ["Cut", "cut"]


class Cut(NamedTuple):
    """An instant in which no program was running: the ring up to ``position``, and counters.

    Everything that was begun by then was submitted, had no room or was throttled, and
    exactly the submitted records lie before ``position``.
    """

    position: int
    totals: Totals


def cut(programs: Programs) -> Cut | None:
    """Try to find such an instant now; None if an event came in between.

    Each processor counts what it begins before, and what became of it after it has
    written to the ring. So if as many were begun as have ended, and both readings
    around that of the ring's position agree, no record was being written then.
    """
    before = programs.totals()
    if before.begun != before.submitted + before.ring_full + before.throttled:
        return None
    position = programs.ring.produced
    return Cut(position, before) if programs.totals() == before else None
