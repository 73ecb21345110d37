"""What people are told of an incident: written once, in words that fit any service.

Every text in a `Message` is one printable line of bounded length (`linnix_core.printable`).
What a service takes as markup is still in there: each sink escapes for its own target.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import attrs

from linnix_core import Evidence, Feedback, Incident, Insight, Severity, printable

__all__ = ["Change", "Message", "message_of", "sections", "test_message", "with_feedback",
           "with_insight"]  # fmt: skip

#: Why a message is sent.
Change: TypeAlias = Literal[
    "opened", "updated", "explained", "worse", "reopened", "resolved", "test"
]

#: How long one line may become, and how many of a kind there are.
MAX_LINE = 300
MAX_LINES = 6

_WORDS = {
    "fork_storm": "fork storm",
    "short_job_flood": "flood of short jobs",
    "runaway_tree": "runaway process tree",
    "cpu_spin": "busy loop",
    "io_saturation": "saturated I/O",
    "oom_risk": "risk of running out of memory",
    "normal": "unusual load",
}

_ORIGINS = {
    "cron": "started by cron ({})",
    "ssh": "started in a login over SSH ({})",
    "container": "in the container {}",
    "service": "part of the service {}",
    "session": "part of the session {}",
}


@attrs.frozen(kw_only=True)
class Message:
    """One state of one incident, for people.

    ``key`` names the page and stays the same through updates, the end and a restart of the
    agent; ``version`` counts what was to be told under it. ``open`` is whether the incident
    goes on. Times end in ``_ns`` and count from the Unix epoch: ``opened_ns`` is when the incident
    began, ``paged_ns`` when its page was made here.
    """

    key: str
    incident: str
    host: str
    subject: str
    severity: Severity
    class_: str
    what: str
    who: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    why: str = ""
    actions: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    remark: str = ""
    alerts: int = 1
    reopened: int = 0
    opened_ns: int = 0
    closed_ns: int | None = None
    paged_ns: int = 0
    open: bool = True
    change: Change = "opened"
    version: int = 1

    @property
    def title(self) -> str:
        """Who has what, in one line: ``HIGH on web-1: fork storm by bash (pid 812)``."""
        if self.change == "test":
            return f"TEST from Linnix on {self.host}: nothing happened"
        state = self.severity.upper() if self.open else "RESOLVED"
        return printable(f"{state} on {self.host}: {self.subject}", MAX_LINE)

    @property
    def when(self) -> str:
        """From when to when, and how often."""
        began = _moment(self.opened_ns)
        times = "1 alert" if self.alerts == 1 else f"{self.alerts} alerts"
        again = f", came back {_times(self.reopened)}" if self.reopened else ""
        if self.open or self.closed_ns is None:
            return f"since {began}, {times}{again}"
        lasted = _duration(self.closed_ns - self.opened_ns)
        return f"{began} to {_moment(self.closed_ns)} ({lasted}), {times}{again}"


def message_of(incident: Incident, key: str, *, paged_ns: int = 0) -> Message:
    """An incident as people are told of it."""
    thing = _WORDS.get(incident.class_ or "", "")
    if not thing:
        thing = printable(incident.rules[0], 60).replace("_", " ") if incident.rules else "alert"
    return Message(
        key=key,
        incident=printable(incident.id, 100),
        host=printable(incident.host, 100) or "this host",
        subject=f"{thing} by {_name(incident)}",
        severity=incident.severity,
        class_=incident.class_ or "",
        what=printable(incident.summary, MAX_LINE) or thing,
        who=tuple(_who(incident)),
        facts=tuple(_facts(incident))[:MAX_LINES],
        actions=_lines(incident.actions),
        alerts=incident.alerts,
        reopened=incident.reopened,
        opened_ns=incident.opened_ns,
        closed_ns=incident.closed_ns,
        paged_ns=paged_ns,
        open=incident.change != "closed",
    )


def with_insight(message: Message, insight: Insight) -> Message:
    """The same, explained."""
    why = printable(insight.why, MAX_LINE)
    sure = f"{round(insight.confidence * 100)} % sure, says {printable(insight.reasoner, 40)}"
    return attrs.evolve(
        message,
        why=f"{why} ({sure})" if insight.reasoner else why,
        actions=_lines(insight.actions) or message.actions,
    )


def with_feedback(message: Message, feedback: Feedback) -> Message:
    """The same, with what a person said of it; the latest few."""
    note = f": {feedback.note}" if feedback.note else ""
    line = printable(f"{feedback.verdict}, says {feedback.by or 'somebody'}{note}", MAX_LINE)
    return attrs.evolve(message, said=(*message.said, line)[-MAX_LINES:])


def test_message(host: str, *, key: str, now_ns: int) -> Message:
    """A message that says that it is none."""
    return Message(
        key=key,
        incident="",
        host=printable(host, 100) or "this host",
        subject="",
        severity="info",
        class_="",
        what="Somebody typed `linnix notify test`. Nobody has to do anything.",
        opened_ns=now_ns,
        paged_ns=now_ns,
        change="test",
    )


test_message.__test__ = False  # type: ignore[attr-defined] # pytest: this is no test


def sections(message: Message) -> list[tuple[str, tuple[str, ...]]]:
    """What the message says below its title: headings with their lines, the urgent first."""
    parts = [
        ("What happened", (message.what,)),
        ("Remark", (message.remark,)),
        ("Who did it", message.who),
        ("Why", (message.why,)),
        ("What to do", (*message.actions, *_look_closer(message))),
        ("Measured", message.facts),
        ("When", (message.when,)),
        ("Feedback", message.said),
    ]
    found = [(heading, tuple(line for line in lines if line)) for heading, lines in parts]
    return [(heading, lines) for heading, lines in found if lines]


def _look_closer(message: Message) -> tuple[str, ...]:
    return (f"look closer: linnix explain {message.incident}",) if message.incident else ()


# --- words ------------------------------------------------------------------------------


def _name(incident: Incident) -> str:
    subject = incident.subject
    name = printable(subject.comm or (subject.exe or "").rpartition("/")[2], 60)
    if not name:
        return printable(subject.cgroup or "the host", 80)
    return f"{name} (pid {subject.key.pid})" if subject.key else name


def _who(incident: Incident) -> Iterator[str]:
    subject = incident.subject
    process = next((p for p in incident.tree if p.relation == "subject"), None)
    parts = [_name(incident)]
    if subject.exe:
        parts.append(printable(subject.exe, 150))
    if process is not None and process.uid is not None:
        parts.append(f"user id {process.uid}")
    yield ", ".join(parts)
    if process is not None and process.args:
        yield printable("command line: " + " ".join(process.args), MAX_LINE)
    if incident.origin is not None:
        yield _ORIGINS[incident.origin.kind].format(printable(incident.origin.name, 100))
    ancestors = [p for p in incident.tree if p.relation == "ancestor"][-4:]
    if ancestors:
        chain = [f"{printable(p.comm, 40)} ({p.key.pid})" for p in ancestors]
        yield "below " + " > ".join(chain)
    if subject.cgroup:
        yield printable(f"cgroup {subject.cgroup}", MAX_LINE)
    if incident.labels:
        pairs = [f"{key}={value}" for key, value in sorted(incident.labels.items())]
        yield printable("labels " + ", ".join(pairs[:MAX_LINES]), MAX_LINE)


def _facts(incident: Incident) -> Iterator[str]:
    """What was measured last, after what was more than that."""
    last = tuple(dict.fromkeys(map(_fact, incident.evidence)))
    peak = dict.fromkeys(map(_fact, incident.peak))
    yield from (f"{fact} at the peak" for fact in peak if fact not in last)
    yield from last


def _fact(item: Evidence) -> str:
    name = printable(item.name, 60).replace("_", " ")
    value, unit = item.value, item.unit
    if unit in ("By", "By/s"):
        amount = _bytes(value) + unit.removeprefix("By")
    else:
        number = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"
        amount = f"{number} {printable(unit, 20)}".rstrip()
    return amount if item.name == unit else f"{name}: {amount}"


def _bytes(value: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def _lines(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(printable(text, MAX_LINE) for text in texts[:MAX_LINES])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _moment(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"


def _duration(ns: int) -> str:
    seconds = max(ns // 10**9, 0)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
