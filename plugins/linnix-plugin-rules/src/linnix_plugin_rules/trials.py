"""Tests inside a file of rules: what processes do, and which alerts are expected of that.

tests:
  - name: a shell loop is a storm
    given:
      - {fork: bash, times: 300, every: 0.005}
    expect:
      - {rule: fork_storm, process: bash}
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from linnix_core import (
    SEVERITIES,
    Alert,
    CgroupSample,
    Pressure,
    ProcessEvent,
    ProcessSample,
    Record,
    SystemSample,
)
from linnix_plugin_rules.detector import number, whole_number
from linnix_plugin_rules.engine import Engine, Rule
from linnix_plugin_rules.syntax import Fields, Mistake, Table, Values, shown

__all__ = ["Outcome", "Trial", "parse_trials", "run_trial"]

SECOND_NS = 1_000_000_000
BEGAN_NS = 1_767_225_600 * SECOND_NS
UPTIME_NS = 1_000_000 * SECOND_NS

#: Records that one test can make.
MAX_RECORDS = 200_000


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("expected a text of one line")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("expected a list of texts")
    return tuple(map(_text, value))


def _seconds(value: object) -> float:
    return number(value, 0, 86_400 * 30, "seconds, 0 or more")


def _amount(value: object) -> float:
    return number(value, 0, 1e15, "a number, 0 or more")


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("expected a whole number, 0 or more")
    return value


def _pressures(value: object) -> dict[str, float]:
    if not isinstance(value, Table) or not {each.key for each in value.entries} <= RESOURCES:
        raise ValueError("expected cpu, memory or io with a percentage each")
    return {entry.key: _amount(entry.value) for entry in value.entries}


_Parser = Callable[[object], Any]

#: By the word that a step begins with: what that takes, and the other keys.
STEPS: dict[str, dict[str, _Parser]] = {
    "process": {"process": _text, "parent": _text, "exe": _text, "args": _texts,
                "user": _whole, "cgroup": _text},
    "fork": {"fork": _text, "as": _text, "exec": _text, "args": _texts, "lives": _seconds,
             "exit_code": _whole, "signal": whole_number, "times": whole_number,
             "every": _seconds},
    "exec": {"exec": _text, "exe": _text, "args": _texts},
    "exit": {"exit": _text, "exit_code": _whole, "signal": whole_number},
    "oom": {"oom": _text},
    "wait": {"wait": _seconds},
    "sample": {"sample": lambda value: value, "pressure": _pressures, "times": whole_number,
               "every": _seconds},
    "pressure": {"pressure": _pressures, "cgroup": _text, "times": whole_number,
                 "every": _seconds},
    "cgroup": {"cgroup": _text, "memory_limit_mb": _amount, "memory_mb": _amount,
               "oom_kills": _whole},
}  # fmt: skip

#: What can be waited for.
RESOURCES = frozenset({"cpu", "memory", "io"})

#: What a sample can say of a process.
USES = ("cpu", "cpu_delay", "rss_mb", "rss_growth_mb", "io_mb", "threads", "fds", "state")

EXPECTED: dict[str, _Parser] = {
    "rule": _text,
    "process": _text,
    "message": _text,
    "severity": _text,
    "times": whole_number,
}


@attrs.frozen
class Trial:
    """One test of a file of rules."""

    name: str
    line: int
    given: tuple[Mapping[str, Any], ...]
    expect: tuple[Mapping[str, Any], ...]


@attrs.frozen
class Outcome:
    """How a test went; ``problems`` are sentences, none if it passed."""

    trial: Trial
    alerts: tuple[Alert, ...]
    problems: tuple[str, ...]


# --- reading --------------------------------------------------------------------------


def parse_trials(
    tables: Sequence[Table], rules: Collection[str], mistakes: list[Mistake]
) -> list[Trial]:
    """The tests of a file; what is wrong with them is added to the mistakes."""
    trials = []
    for table in tables:
        fields = Fields(table, mistakes)
        fields.only(("name", "given", "expect"))
        name = fields.take("name", _text, required=True, of="a test")
        steps = _tables(fields, "given", mistakes, "a step")
        given = [step for table in steps if (step := _step(table, mistakes))]
        expect = []
        for expected in _tables(fields, "expect", mistakes, "an alert"):
            inner = Fields(expected, mistakes)
            inner.only(tuple(EXPECTED))
            found = _taken(inner, EXPECTED)
            if (rule := inner.take("rule", _text, required=True, of="an alert")) is not None:
                if rule not in rules:
                    inner.wrong("rule", f"there is no rule {shown(rule)}")
                expect.append(found)
            if found.get("severity") not in (None, *SEVERITIES):
                inner.wrong("severity", f"severity: expected one of {', '.join(SEVERITIES)}")
        trials.append(Trial(name or "?", table.line, tuple(given), tuple(expect)))
    return trials


def _tables(fields: Fields, key: str, mistakes: list[Mistake], what: str) -> list[Table]:
    values = fields.take(key, _list, required=True, of="a test") or []
    lines = values.lines if isinstance(values, Values) else [fields.line(key)] * len(values)
    for value, line in zip(values, lines, strict=True):
        if not isinstance(value, Table):
            mistakes.append(Mistake(line, f"expected {what}, got {shown(value)}"))
    return [value for value in values if isinstance(value, Table)]


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return value


def _step(table: Table, mistakes: list[Mistake]) -> Mapping[str, Any] | None:
    word = next((entry.key for entry in table.entries if entry.key in STEPS), None)
    if word is None:
        mistakes.append(Mistake(table.line, f"a step begins with one of {', '.join(STEPS)}"))
        return None
    if word == "cgroup" and table.get("pressure"):
        word = "pressure"
    fields = Fields(table, mistakes)
    fields.only(tuple(STEPS[word]))
    step = {"step": word, **_taken(fields, STEPS[word])}
    if word == "sample":
        step["sample"] = _uses(fields, step["sample"], mistakes)
    return step


def _taken(fields: Fields, parsers: Mapping[str, _Parser]) -> dict[str, Any]:
    taken = {key: fields.take(key, parse) for key, parse in parsers.items()}
    return {key: value for key, value in taken.items() if value is not None}


def _uses(fields: Fields, value: object, mistakes: list[Mistake]) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Table):
        fields.wrong("sample", "sample: expected processes with what they use")
        return {}
    uses = {}
    for entry in value.entries:
        if not isinstance(entry.value, Table):
            mistakes.append(Mistake(entry.line, f"expected a mapping of {', '.join(USES)}"))
            continue
        inner = Fields(entry.value, mistakes)
        inner.only(USES)
        numbers: dict[str, _Parser] = dict.fromkeys(USES[:-1], _amount)
        uses[entry.key] = _taken(inner, {**numbers, "state": _text})
    return uses


# --- running --------------------------------------------------------------------------


def run_trial(trial: Trial, rules: Sequence[Rule]) -> Outcome:
    """Let the rules judge what the test makes up. They begin with nothing seen."""
    engine, host = Engine(rules), _Host()
    alerts: list[Alert] = []
    made = 0
    for step in trial.given:
        for record in host.take(step):
            alerts += engine.handle([record])
            made += 1
            if made > MAX_RECORDS:
                return Outcome(trial, tuple(alerts), (f"more than {MAX_RECORDS} records",))
    host.ts_ns += SECOND_NS  # so that the last samples are judged
    alerts += engine.handle([SystemSample(interval_ns=0, ts_ns=host.ts_ns)])
    return Outcome(trial, tuple(alerts), tuple(_problems(trial, alerts, host)))


def _problems(trial: Trial, alerts: Sequence[Alert], host: _Host) -> Iterator[str]:
    left = list(alerts)
    for expected in trial.expect:
        fitting = [alert for alert in left if _fits(alert, expected, host)]
        wanted = expected.get("times", 1)
        if len(fitting) < wanted:
            yield f"expected {_words(expected)}, which came {len(fitting)} times of {wanted}"
        for alert in fitting[:wanted]:
            left.remove(alert)
    for alert in left:
        yield f"not expected: {alert.rule}: {alert.message}"


def _fits(alert: Alert, expected: Mapping[str, Any], host: _Host) -> bool:
    named = expected.get("process")
    return (
        alert.rule == expected["rule"]
        and expected.get("severity") in (None, alert.severity)
        and expected.get("message", "") in alert.message
        and (named is None or host.is_called(named, alert))
    )


def _words(expected: Mapping[str, Any]) -> str:
    more = [f"{key} {value}" for key, value in expected.items() if key not in ("rule", "times")]
    return ", ".join([expected["rule"], *more])


@attrs.define(eq=False)
class _Proc:
    pid: int
    start_ns: int
    parent: _Proc | None
    comm: str
    exe: str | None = None
    args: tuple[str, ...] | None = None
    uid: int | None = None
    cgroup: str | None = None
    rss_mb: float = 0


class _Host:
    """Made up processes by the names that a test gives them; a new name is one from before."""

    def __init__(self) -> None:
        self.ts_ns = BEGAN_NS
        self._pids = itertools.count(1000)
        self._known: dict[str, _Proc] = {}
        self._waiting: list[tuple[int, _Proc, Mapping[str, Any]]] = []
        self._stalls_us: dict[tuple[str, str], float] = {}

    def is_called(self, name: str, alert: Alert) -> bool:
        proc = self._known.get(name)
        key = alert.subject.key
        return proc is not None and key is not None and key[1:] == (proc.pid, proc.start_ns)

    def take(self, step: Mapping[str, Any]) -> Iterator[Record]:
        """The records of a step, and of ends that come meanwhile."""
        word = step["step"]
        yield from getattr(self, f"_{word}")(step)

    def _pass(self, seconds: float) -> Iterator[Record]:
        until_ns = self.ts_ns + round(seconds * SECOND_NS)
        while self._waiting and self._waiting[0][0] <= until_ns:
            self.ts_ns, proc, how = self._waiting.pop(0)
            yield self._end(proc, how)
        self.ts_ns = until_ns

    def _start(self, parent: _Proc | None, comm: str, **more: Any) -> _Proc:
        start_ns = (UPTIME_NS + self.ts_ns - BEGAN_NS) // 10_000_000 * 10_000_000
        return _Proc(next(self._pids), start_ns, parent, comm, **more)

    def _event(self, kind: Any, proc: _Proc, **more: Any) -> ProcessEvent:
        parent = proc.parent
        return ProcessEvent(
            kind, proc.pid, proc.start_ns,
            parent.pid if parent else 1, parent.start_ns if parent else 0,
            uid=proc.uid, comm=proc.comm, exe=proc.exe, args=proc.args, cgroup=proc.cgroup,
            ts_ns=self.ts_ns, **more,
        )  # fmt: skip

    def _named(self, name: str) -> Iterator[Record]:
        if name not in self._known:
            yield from self._process({"process": name})

    def _process(self, step: Mapping[str, Any]) -> Iterator[Record]:
        name = step["process"]
        if "parent" in step:
            yield from self._named(step["parent"])
        self._known[name] = proc = self._start(
            self._known.get(step.get("parent", "")), name,
            exe=step.get("exe", f"/usr/bin/{name}"), args=step.get("args"),
            uid=step.get("user"), cgroup=step.get("cgroup"),
        )  # fmt: skip
        yield self._event("seen", proc)

    def _fork(self, step: Mapping[str, Any]) -> Iterator[Record]:
        yield from self._named(step["fork"])
        parent = self._known[step["fork"]]
        for n in range(1, step.get("times", 1) + 1):
            child = self._start(
                parent, parent.comm,
                exe=parent.exe, args=parent.args, uid=parent.uid, cgroup=parent.cgroup,
            )  # fmt: skip
            yield self._event("fork", child)
            if "as" in step:
                self._known[step["as"]] = child
            if "exec" in step:
                args = step.get("args")
                args = args and tuple(arg.replace("{n}", str(n)) for arg in args)
                yield self._image(child, step["exec"], args)
            if "lives" in step:
                due = self.ts_ns + round(step["lives"] * SECOND_NS), child, step
                self._waiting.append(due)
                self._waiting.sort(key=lambda each: each[0])
            yield from self._pass(step.get("every", 0))

    def _exec(self, step: Mapping[str, Any]) -> Iterator[Record]:
        yield from self._named(step["exec"])
        name = step["exec"]
        yield self._image(self._known[name], step.get("exe", name), step.get("args"))

    def _image(self, proc: _Proc, exe: str, args: tuple[str, ...] | None) -> ProcessEvent:
        proc.exe = exe if "/" in exe else f"/usr/bin/{exe}"
        proc.comm, proc.args = proc.exe.rpartition("/")[2][:15], args
        return self._event("exec", proc)

    def _exit(self, step: Mapping[str, Any]) -> Iterator[Record]:
        yield from self._named(step["exit"])
        yield self._end(self._known[step["exit"]], step)

    def _end(self, proc: _Proc, how: Mapping[str, Any]) -> ProcessEvent:
        signal = how.get("signal")
        code = how.get("exit_code", 0) if signal is None else None
        return self._event("exit", proc, exit_code=code, signal=signal)

    def _oom(self, step: Mapping[str, Any]) -> Iterator[Record]:
        yield from self._named(step["oom"])
        yield self._event("oom", self._known[step["oom"]])

    def _wait(self, step: Mapping[str, Any]) -> Iterator[Record]:
        yield from self._pass(step["wait"])

    def _sample(self, step: Mapping[str, Any]) -> Iterator[Record]:
        every = step.get("every", 1)
        for _ in range(step.get("times", 1)):
            yield from self._pass(every)
            for name, uses in step["sample"].items():
                yield from self._named(name)
                yield self._use(self._known[name], uses, every)
            if "pressure" in step:
                yield self._stall(step["pressure"], every)

    def _use(self, proc: _Proc, uses: Mapping[str, Any], every: float) -> ProcessSample:
        proc.rss_mb = uses.get("rss_mb", proc.rss_mb) + uses.get("rss_growth_mb", 0) * every
        io, threads, fds = uses.get("io_mb"), uses.get("threads"), uses.get("fds")
        return ProcessSample(
            proc.pid, proc.start_ns, round(every * SECOND_NS), proc.comm,
            cpu_percent=uses.get("cpu", 0.0),
            cpu_delay_percent=uses.get("cpu_delay"),
            rss_bytes=round(proc.rss_mb * 1e6),
            threads=None if threads is None else int(threads),
            fds=None if fds is None else int(fds),
            state=uses.get("state", "S"),
            read_bytes=0,
            write_bytes=None if io is None else round(io * 1e6 * every),
            cgroup=proc.cgroup, ts_ns=self.ts_ns,
        )  # fmt: skip

    def _pressure(self, step: Mapping[str, Any]) -> Iterator[Record]:
        every = step.get("every", 1)
        for _ in range(step.get("times", 1)):
            yield from self._pass(every)
            yield self._stall(step["pressure"], every, step.get("cgroup", "/"))

    def _stall(
        self, pressures: Mapping[str, float], every: float, cgroup: str = "/"
    ) -> CgroupSample | SystemSample:
        """A sample of the machine, or of a cgroup, in which work waits for so many percent."""
        interval_ns = round(every * SECOND_NS)
        sample: CgroupSample | SystemSample = SystemSample(interval_ns, ts_ns=self.ts_ns)
        if cgroup != "/":
            sample = CgroupSample(cgroup, interval_ns, ts_ns=self.ts_ns)
        for resource, percent in pressures.items():
            total = self._stalls_us.get((cgroup, resource), 0) + percent * 1e4 * every
            self._stalls_us[cgroup, resource] = total
            stalled = Pressure(percent, round(total), percent, round(total))
            setattr(sample, f"psi_{resource}", stalled)
        return sample

    def _cgroup(self, step: Mapping[str, Any]) -> Iterator[Record]:
        limit, used = step.get("memory_limit_mb"), step.get("memory_mb")
        kills = step.get("oom_kills")
        yield CgroupSample(
            step["cgroup"], SECOND_NS,
            memory_bytes=None if used is None else round(used * 1e6),
            memory_limit_bytes=None if limit is None else round(limit * 1e6),
            memory_events=None if kills is None else {"oom_kill": kills},
            ts_ns=self.ts_ns,
        )  # fmt: skip
