"""When processes were created, in the words of OpenTelemetry."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from linnix_core import ProcessEvent

__all__ = ["Births", "iso_time"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

#: Boots of other machines that are remembered, in a replay of many.
MAX_BOOTS = 64

#: A start is known to ten milliseconds only.
_TICK_NS = 10_000_000


@lru_cache(maxsize=8192)
def iso_time(ts_ns: int) -> str:
    """A moment since the epoch as the conventions write it: ISO 8601, UTC, milliseconds.

    >>> iso_time(1_795_342_530_123_999_999)
    '2026-11-22T10:15:30.123Z'
    """
    whole, rest = divmod(ts_ns, 10**9)
    moment = datetime.fromtimestamp(whole, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 10**6:03d}Z"


class Births:
    """Turns starts, which count from boot, into times of day, which do not move afterwards.

    The boot of this machine is known; that of another one (a replay) from the first fork of it.
    """

    def __init__(self, boots: dict[str, int] | None = None) -> None:
        self._boots = this_boot() if boots is None else dict(boots)

    def learn(self, event: ProcessEvent) -> None:
        """Take note of when another machine was booted."""
        if event.boot_id in self._boots or event.kind != "fork":
            return
        if len(self._boots) < MAX_BOOTS:
            self._boots[event.boot_id] = (event.ts_ns - event.start_ns) // _TICK_NS * _TICK_NS

    def created_ns(self, boot_id: str, start_ns: int) -> int | None:
        """Nanoseconds since the epoch at which the process began; None if not known."""
        boot = self._boots.get(boot_id)
        return None if boot is None else boot + start_ns

    def created(self, boot_id: str, start_ns: int) -> str | None:
        """``process.creation.time``; None if the boot is not known."""
        boot = self._boots.get(boot_id)
        return None if boot is None else iso_time(boot + start_ns)


def this_boot() -> dict[str, int]:
    """The boot id of this machine, and when that was; empty where there is none."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return {}
    return {boot_id: (time.time_ns() - since_ns) // _TICK_NS * _TICK_NS}
