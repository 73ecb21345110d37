"""Numbers and moments as people read them. What is not known is a dash, never a zero."""

from __future__ import annotations

import time

__all__ = ["clock_time", "count", "day_time", "number", "percent", "size", "span"]


def clock_time(ts_ns: int) -> str:
    """Hours, minutes and seconds where the reader is."""
    return time.strftime("%H:%M:%S", time.localtime(ts_ns // 10**9))


def day_time(ts_ns: int | None) -> str:
    """The same, with the date unless that is today's."""
    if ts_ns is None:
        return "-"
    moment = time.localtime(ts_ns // 10**9)
    today = moment[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", moment)


def span(seconds: float | None) -> str:
    """A duration with its two largest units.

    >>> span(0.25), span(42.7), span(134), span(7260), span(183600), span(None)
    ('0.25s', '42s', '2m 14s', '2h 01m', '2d 03h', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.2f}".rstrip("0").rstrip(".") + "s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def percent(value: float | None) -> str:
    """One digit after the point.

    >>> percent(97.46), percent(0), percent(None)
    ('97.5%', '0.0%', '-')
    """
    return "-" if value is None else f"{value:.1f}%"


def size(value: float | None) -> str:
    """Bytes with the unit that leaves few digits (IEC 80000-13).

    >>> size(512), size(1536), size(300 * 2**20), size(None)
    ('512B', '1.5K', '300M', '-')
    """
    if value is None:
        return "-"
    for unit in "BKMGT":
        if abs(value) < 1000 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit != "B" and abs(value) < 10 else f"{value:.0f}{unit}"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "incident"), count(2, "process"), count(12345, "event")
    ('1 incident', '2 processes', '12,345 events')
    """
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}"


def number(value: float) -> str:
    """At most two digits after the point, and none that say nothing.

    >>> number(812), number(97.512), number(0.5)
    ('812', '97.51', '0.5')
    """
    return f"{value:,.2f}".rstrip("0").rstrip(".")
