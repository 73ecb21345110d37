"""To wait, in a test, for what nothing tells of."""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

__all__ = ["eventually"]

_T = TypeVar("_T")

_PAUSE_S = 0.01


def eventually(
    look: Callable[[], _T],
    holds: Callable[[_T], object] = bool,
    *,
    said: Callable[[], object] | None = None,
    within_s: float = 60.0,
) -> _T:
    """What ``look()`` returns, as soon as ``holds`` is true of it; looks again and again.

        eventually(lambda: server.requests)
        eventually(handler.linnix_health, lambda health: health.status == "ok")

    Only for what comes without an event: who can wait for a `threading.Event`, a thread or
    the end of a process does that. Raises `AssertionError` when ``within_s`` seconds have
    passed, with what was awaited, what was seen last and what ``said()`` adds, such as the
    log of another process. What ``look`` and ``holds`` raise passes through.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + within_s
    while True:
        last = time.monotonic() >= deadline
        seen = look()
        if holds(seen):
            return seen
        if last:
            awaited = look if holds is bool else holds
            more = "" if said is None else f"\n{said()}"
            raise AssertionError(
                f"not within {within_s:g} s: {_source(awaited)}\nseen last: {seen!r:.2000}{more}"
            )
        time.sleep(_PAUSE_S)


def _source(function: Callable[..., Any]) -> str:
    """The first line of a function, or how Python shows what has none."""
    if not isinstance(function, FunctionType):
        return repr(function)
    code = function.__code__
    return linecache.getline(code.co_filename, code.co_firstlineno).strip() or repr(function)
