"""Moments as people write them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

__all__ = ["MOMENT", "shown"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """Nanoseconds since the epoch, from ``2026-11-22 04:10:00``, ``04:10``, ``10m``, ``now``."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        now_ns = time.time_ns()
        if text == "now":
            return now_ns
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", text):
            return now_ns - int(ago[1]) * _SECONDS[ago[2]] * 10**9
        if epoch := re.fullmatch(r"(\d{9,11})(?:\.(\d{1,9}))?", text):
            return int(epoch[1]) * 10**9 + int((epoch[2] or "").ljust(9, "0"))
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
            text = f"{datetime.now().astimezone():%Y-%m-%d}T{text}"
        try:
            return _nanoseconds(datetime.fromisoformat(text))
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is no time: write 2026-11-22T04:10:00, 04:10 (today), "
                "10m (so long ago), seconds since the epoch, or now",
                param,
                ctx,
            )


def _nanoseconds(moment: datetime) -> int:
    """Exactly, which a float of so many seconds is not; without a zone it is the local one."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    if microseconds < 0:
        raise ValueError("before the epoch")
    return microseconds * 1000


MOMENT = _Moment()


def shown(ts_ns: int) -> str:
    """A moment for people, in the local zone, to the millisecond.

    >>> len(shown(0))
    23
    """
    moment = datetime.fromtimestamp(ts_ns // 10**9, UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ts_ns // 10**6 % 1000:03d}"
