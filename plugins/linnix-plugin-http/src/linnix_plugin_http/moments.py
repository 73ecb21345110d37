"""Moments as people and programs write them."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Annotated, TypeAlias

from msgspec import Meta

from linnix_plugin_http.operations import Problem

__all__ = ["Moment", "moment_ns"]

_SINCE_1970 = r"[0-9]{1,12}(\.[0-9]{1,9})?"
_AGO = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)"
_ISO = (
    r"(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
    r"(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])?)?"
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

#: Beyond it numbers of 64 bits come to an end.
_LATEST_S = 2**63 / 1e9 - 1

#: The type of a parameter that is one.
Moment: TypeAlias = Annotated[
    str,
    Meta(
        description="seconds since 1970, 2026-11-22T04:10:00Z, or 10m for ten minutes ago",
        extra_json_schema={"pattern": f"^({_SINCE_1970}|{_AGO}|{_ISO})$"},
    ),
]


def moment_ns(text: str, name: str) -> int:
    """Nanoseconds since 1970. Raises `Problem`, which calls the parameter ``name``."""
    if re.fullmatch(_SINCE_1970, text):
        seconds = float(text)
    elif match := re.fullmatch(_AGO, text):
        unit = match[2]
        seconds = time.time() - float(text.removesuffix(unit)) * _SECONDS[unit]
    elif re.fullmatch(_ISO, text):
        # A day that its month does not have is one of the next month.
        first = dt.datetime.fromisoformat(f"{text[:8]}01{text[10:]}")
        seconds = (first + dt.timedelta(days=int(text[8:10]) - 1)).timestamp()
    else:
        raise Problem(
            400,
            f"{name}: expected a moment, got {text[:80]!r}",
            hint="seconds since 1970, 2026-11-22T04:10:00Z, or 10m for ten minutes ago",
        )
    return int(min(max(seconds, 0.0), _LATEST_S) * 1e9)
