"""The process table as the API shows it: shaped, filtered, sorted, cut into pages."""

from __future__ import annotations

import operator
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from linnix_core import Process, ProcessSample, ProcessView
from linnix_plugin_http.operations import Problem
from linnix_plugin_http.shapes import K8s, ProcessInfo

__all__ = ["ORDER", "TERM", "Living", "Measure", "k8s_of", "select", "sort"]

#: Seconds for which one look at the whole table serves everybody.
FRESH_S = 0.25

Value: TypeAlias = float | str | None
Getter: TypeAlias = Callable[[Process], Value]


#: The key and the measurements of what nobody knows.
_NOBODY = (None, None, None)
_UNMEASURED = ProcessSample(pid=0, start_ns=0, interval_ns=0)


class Measure:
    """What turns the numbers of a process into those that people compare."""

    def __init__(self, memory_bytes: int | None) -> None:
        memory = memory_bytes or _memory_bytes()
        # Thousandths of a percent for each byte.
        self._share = 100_000 / memory if memory else None
        self._boot_id, self._since_boot_ns = _boot()
        # Hundredths of a second, which is as exact as the kernel tells when a process began.
        self._since_boot_cs = self._since_boot_ns // 10_000_000 * 1.0
        self.getters: dict[str, Getter] = {
            "pid": lambda p: p.key.pid,
            "ppid": lambda p: None if p.parent is None else p.parent.pid,
            "uid": lambda p: p.uid,
            "gid": lambda p: p.gid,
            "comm": lambda p: p.comm,
            "exe": lambda p: p.exe,
            "cgroup": lambda p: p.cgroup,
            "activity": lambda p: None if p.sample is None else p.sample.state,
            "cpu_pct": lambda p: None if p.sample is None else p.sample.cpu_percent,
            "mem_pct": self.memory_percent,
            "rss_bytes": lambda p: None if p.sample is None else p.sample.rss_bytes,
            "threads": lambda p: None if p.sample is None else p.sample.threads,
            "fds": lambda p: None if p.sample is None else p.sample.fds,
            "read_bytes": lambda p: None if p.sample is None else p.sample.read_bytes,
            "write_bytes": lambda p: None if p.sample is None else p.sample.write_bytes,
            "age_sec": self.age_s,
        }

    def memory_percent(self, process: Process) -> float | None:
        """RSS as a share of the machine's memory."""
        return self.shape(process).mem_pct

    def age_s(self, process: Process) -> float | None:
        """How long it lives, or lived; None for what another boot has recorded."""
        return self.shape(process).age_sec

    def started_ns(self, process: Process) -> int:
        """When it began, since 1970; when it was noticed, for one of another boot."""
        if process.key.boot_id != self._boot_id:
            return process.first_ns
        return time.time_ns() - (self._since_boot_ns - process.key.start_ns)

    def shape(self, process: Process) -> ProcessInfo:
        """A process as the API shows it."""
        return self.shapes((process,))[0]

    def shapes(self, processes: Iterable[Process]) -> list[ProcessInfo]:
        """Processes as the API shows them.

        For ten thousand at a time: so without calls, names of arguments, `round` and division
        of large integers, each of which would be a tenth of it or more.
        """
        here, now_cs, share = self._boot_id, self._since_boot_cs, self._share
        found: list[ProcessInfo] = []
        add = found.append
        for process in processes:
            boot_id, pid, start_ns = process.key
            _, ppid, parent_start_ns = process.parent or _NOBODY
            sample = process.sample or _UNMEASURED
            rss = sample.rss_bytes
            k8s = priority = None
            if labels := process.labels:
                k8s, priority = k8s_of(labels), labels.get("priority")
            info = ProcessInfo(
                pid,
                ppid,
                process.uid,
                process.gid,
                process.comm,
                "unknown",
                "running",
                sample.cpu_percent,
                None if rss is None or share is None else (rss * share + 0.5) // 1.0 / 1000.0,
                (now_cs - start_ns / 1e7) / 100.0 if boot_id == here else None,
                k8s,
                priority,
                start_ns,
                parent_start_ns,
                process.exe,
                process.args,  # type: ignore[arg-type]  # a tuple is written like a list
                process.cwd,
                process.cgroup,
                labels,
                rss,
                sample.threads,
                sample.fds,
                sample.state,
                sample.read_bytes,
                sample.write_bytes,
            )
            if process.ended_ns is not None:
                lived_ns = process.duration_ns
                info.event_type, info.state = "exit", "exited"
                info.age_sec = None if lived_ns is None else lived_ns / 1e9
                info.ended = process.ended_ns / 1e9
                info.exit_code, info.signal = process.exit_code, process.signal
            add(info)
        return found


class Living:
    """Looks at the whole process table at most a few times a second, however many ask."""

    def __init__(self, view: ProcessView) -> None:
        self._view = view
        self._lock = threading.Lock()
        self._looked = -FRESH_S
        self._found: Sequence[Process] = ()

    def all(self) -> Sequence[Process]:
        """Everybody who lives; not to be changed."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= FRESH_S:
                self._found = tuple(self._view)
                self._looked = time.monotonic()
            return self._found


def k8s_of(labels: dict[str, str] | None) -> K8s | None:
    """The pod that labels name."""
    if not labels or "pod" not in labels:
        return None
    return K8s(
        pod_name=labels["pod"],
        namespace=labels.get("namespace"),
        container_name=labels.get("container"),
    )


# --- filters ----------------------------------------------------------------------------

#: Fields that are texts, and those that are numbers.
_TEXTS = ("comm", "exe", "cgroup", "activity")
_NUMBERS = (
    "pid",
    "ppid",
    "uid",
    "gid",
    "cpu_pct",
    "mem_pct",
    "rss_bytes",
    "threads",
    "fds",
    "read_bytes",
    "write_bytes",
    "age_sec",
)
_NUMBER = r"-?[0-9]{1,18}(\.[0-9]{1,9})?"

#: A term of a filter, and an order, as regular expressions.
TERM = (
    f"^(({'|'.join(_NUMBERS)}) *(>=|<=|!=|=|>|<) *{_NUMBER}"
    rf"|({'|'.join(_TEXTS)}) *(!=|=|~)[\s\S]+)$"
)
ORDER = f"^({'|'.join(_NUMBERS + _TEXTS)})(:(asc|desc))?$"

_TERM = re.compile(r"(?P<field>[a-z_]+) *(?P<op>>=|<=|!=|=|>|<|~)(?P<value>.+)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}


def select(processes: Iterable[Process], terms: Iterable[str], measure: Measure) -> list[Process]:
    """Those that meet every term, such as ``cpu_pct>5`` or ``comm~nginx`` (contains).

    What is not known meets none. Raises `Problem` for a term that is none.
    """
    found = list(processes)
    for term in terms:
        test = _test(term, measure)
        found = [process for process in found if test(process)]
    return found


def _test(term: str, measure: Measure) -> Callable[[Process], bool]:
    match = _TERM.fullmatch(term)
    known = ", ".join(measure.getters)
    if match is None or match["field"] not in measure.getters:
        raise Problem(
            400,
            f"filter: expected FIELD OPERATOR VALUE, such as cpu_pct>5, got {term[:80]!r}",
            hint=f"fields: {known}; operators: > >= < <= = != ~ (contains)",
        )
    name, sign, text = match["field"], match["op"], match["value"]
    get = measure.getters[name]
    if name in _TEXTS:
        if sign == "~":
            return lambda process: text in str(get(process) or "")
        if sign not in ("=", "!="):
            raise Problem(400, f"filter: {name} is a text; compare it with =, != or ~")
        compare = _COMPARE[sign]
        return lambda process: (value := get(process)) is not None and compare(value, text)
    if sign == "~":
        raise Problem(400, f"filter: {name} is a number; compare it with > >= < <= = !=")
    if not re.fullmatch(_NUMBER, text.lstrip(" ")):
        raise Problem(400, f"filter: {name} is a number, got {text[:80]!r}")
    limit = float(text)
    compare = _COMPARE[sign]
    return lambda process: (value := get(process)) is not None and compare(value, limit)


def sort(processes: list[Process], order: str, measure: Measure) -> list[Process]:
    """By one field, ``cpu_pct:desc`` or ``comm:asc``; what is not known comes last."""
    name, _, direction = order.partition(":")
    if not re.fullmatch(ORDER[1:-1], order):
        raise Problem(
            400,
            f"sort: expected FIELD:asc or FIELD:desc, got {order[:80]!r}",
            hint=f"fields: {', '.join(measure.getters)}",
        )
    values: list[Any] = list(map(measure.getters[name], processes))
    known = [index for index, value in enumerate(values) if value is not None]
    unknown = [index for index, value in enumerate(values) if value is None]
    known.sort(key=values.__getitem__, reverse=direction == "desc")
    return [processes[index] for index in known + unknown]


# --- the machine ------------------------------------------------------------------------


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _boot() -> tuple[str, int]:
    """The id of this boot and how long ago it was; empty where the kernel does not tell."""
    with suppress(OSError, AttributeError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return "", 0
