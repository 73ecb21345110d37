"""Moments as people write them."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

__all__ = ["MOMENT"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """Seconds since the epoch, from ``2026-11-22T04:10:00``, ``04:10``, ``10m``, ``now`` …"""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        if text == "now":
            return time.time()
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", text):
            return time.time() - int(ago[1]) * _SECONDS[ago[2]]
        if re.fullmatch(r"\d{9,11}(\.\d{1,9})?", text):
            return float(text)
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
            text = f"{datetime.now().astimezone():%Y-%m-%d}T{text}"
        try:
            # Without a zone it is the local one.
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is no time: write 2026-11-22T04:10:00, 04:10 (today), "
                "10m (so long ago), seconds since the epoch, or now",
                param,
                ctx,
            )


MOMENT = _Moment()
