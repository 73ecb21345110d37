"""The live view as lines: from what is known to what fits into a window of any size."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import attrs
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from linnix_core import Alert, Process, SystemSample, printable
from linnix_plugin_console.lines import (
    Status,
    clock_time,
    count,
    incident_name,
    rate,
    span,
    state_reason,
    whom,
)
from linnix_plugin_console.news import Story

__all__ = ["Line", "Picture", "compose"]

Line: TypeAlias = list[Segment]
#: A piece of text and how it looks.
Part: TypeAlias = tuple[str, Style | None]

BOLD = Style(bold=True)
DIM = Style(dim=True)
HEADING = Style(bold=True, reverse=True)
RED = Style(color="red", bold=True)
# The sixteen colours of the terminal's own palette, which its owner can read.
_SEVERITY = {
    "critical": Style(color="red", bold=True, reverse=True),
    "high": RED,
    "medium": Style(color="yellow", bold=True),
    "low": Style(color="cyan"),
    "info": None,
}
_STATE = {
    "running": Style(color="green"),
    "degraded": Style(color="yellow", bold=True),
    "unavailable": Style(color="yellow", bold=True),
    "failed": RED,
}
#: From this height on, blank lines set the sections apart.
_ROOMY = 20
#: Below this width, what can be left out is.
_NARROW = 60
#: How much of a text is looked at, at most: several rows of the widest terminals.
_LONGEST = 1000
#: How many of the last messages, and of the closed incidents, there is room for at most.
_MESSAGES = 5
_CLOSED = 3


@attrs.frozen
class Picture:
    """What is known at one moment. ``rates`` are events per second by kind."""

    host: str = ""
    uptime_s: float = 0.0
    processes: int = 0
    rates: Mapping[str, float] = attrs.field(factory=dict)
    oom_kills: int = 0
    losses: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    machine: SystemSample | None = None
    components: Sequence[Status] = ()
    busiest: Sequence[Process] = ()
    stories: Sequence[Story] = ()
    alerts: Sequence[Alert] = ()
    messages: Sequence[str] = ()


@attrs.frozen
class _Section:
    """Lines that belong together: how many there must be, and who is served first."""

    lines: Sequence[Line]
    least: int
    rank: int
    attached: bool = False


def compose(picture: Picture, width: int, height: int) -> list[Line]:
    """At most ``height`` lines of at most ``width`` cells each."""
    sections = [
        _Section(_header(picture, width), least=2, rank=0),
        _Section(_processes(picture, width), least=4, rank=2),
        _Section(_incidents(picture, width), least=3, rank=1),
        _Section(_alerts(picture, width), least=2, rank=5),
        _Section(_troubles(picture, width), least=3, rank=3),
        _Section(_messages(picture, width), least=1, rank=4, attached=True),
    ]
    return _arrange([section for section in sections if section.lines], height)


def _arrange(sections: Sequence[_Section], height: int) -> list[Line]:
    """Give every section its least, then all it wants, by rank, until the window is full."""
    spaced = height >= _ROOMY
    blanks = [spaced and index > 0 and not s.attached for index, s in enumerate(sections)]
    left = height - sum(blanks)
    granted = [0] * len(sections)
    ranked = sorted(range(len(sections)), key=lambda index: sections[index].rank)
    for whole in (False, True):
        for index in ranked:
            wanted = len(sections[index].lines)
            goal = wanted if whole else min(sections[index].least, wanted)
            more = max(min(goal - granted[index], left), 0)
            granted[index] += more
            left -= more
    lines: list[Line] = []
    for section, blank, size in zip(sections, blanks, granted, strict=True):
        if size:
            lines += [[]] if blank else []
            lines += section.lines[:size]
    return lines


# --- the sections ---------------------------------------------------------------------


def _header(picture: Picture, width: int) -> list[Line]:
    title = [
        ("linnix", BOLD),
        (printable(picture.host, _LONGEST), BOLD),
        (count(picture.processes, "process"), None),
        (f"up {span(picture.uptime_s)}", None),
    ]
    lines = [_fit(_spread([part for part in title if part[0]]), width)]
    if picture.losses:
        lost = [
            (f"{number:,} in {printable(component)} ({printable(why)})", RED)
            for (component, why), number in picture.losses.items()
        ]
        lines.append(_labelled("lost", lost, width, RED))
    events: list[Part] = [(f"{rate(sum(picture.rates.values()))}/s", BOLD)]
    events += [
        (f"{kind} {rate(picture.rates.get(kind, 0.0))}", None) for kind in ("fork", "exec", "exit")
    ]
    if picture.oom_kills:
        events.append((count(picture.oom_kills, "OOM kill"), RED))
    if not picture.losses:
        events.append(("nothing lost", DIM))
    lines.append(_labelled("events", events, width))
    collectors: list[Part] = [
        (f"{printable(status.name)} {status.state}", _STATE.get(status.state, DIM))
        for status in picture.components
        if status.kind == "collectors"
    ]
    lines.append(_labelled("collectors", collectors or [("none", DIM)], width))
    if picture.machine is not None and (machine := _machine(picture.machine)):
        lines.append(_labelled("machine", machine, width))
    return lines


def _machine(sample: SystemSample) -> list[Part]:
    parts: list[Part] = []
    if sample.cpu_percent is not None:
        parts.append((f"cpu {sample.cpu_percent:.0f}%", None))
    if sample.memory_total_bytes and sample.memory_available_bytes is not None:
        used = sample.memory_total_bytes - sample.memory_available_bytes
        parts.append((f"mem {_size(used)}/{_size(sample.memory_total_bytes)}", None))
    if sample.load1 is not None:
        parts.append((f"load {sample.load1:.2f}", None))
    stalls = [
        f"{name} {pressure.some_avg10:.0f}%"
        for name, pressure in (
            ("cpu", sample.psi_cpu),
            ("mem", sample.psi_memory),
            ("io", sample.psi_io),
        )
        if pressure is not None
    ]
    if stalls:
        parts.append((f"stall {' '.join(stalls)}", None))
    return parts


def _processes(picture: Picture, width: int) -> list[Line]:
    narrow = width < _NARROW
    threads = "" if narrow else f"{'THR':>5}"
    lines = [
        _fit([(f"{'PID':>7}{'CPU%':>7}{'RSS':>7}{threads}  COMMAND".ljust(width), HEADING)], width)
    ]
    for process in picture.busiest:
        sample = process.sample
        if sample is None:
            continue
        cpu = sample.cpu_percent or 0.0
        rss = "-" if sample.rss_bytes is None else _size(sample.rss_bytes)
        if not narrow:
            threads = f"{'-' if sample.threads is None else sample.threads:>5}"
        busy = BOLD if cpu >= 50 else None
        lines.append(
            _fit(
                [
                    (f"{process.pid:>7}", None),
                    (f"{cpu:>7.1f}", busy),
                    (f"{rss:>7}{threads}  ", None),
                    (_command(process.args, process.comm), busy),
                ],
                width,
            )
        )
    if len(lines) == 1:
        lines.append(_fit([("  nothing measured yet", DIM)], width))
    return lines


def _incidents(picture: Picture, width: int) -> list[Line]:
    stories = picture.stories
    if not stories:
        quiet = "no incidents" if picture.alerts else "no alerts, no incidents"
        return [_fit([(f"{quiet} so far", DIM)], width)]
    closed = sum(story.closed for story in stories)
    amounts = [f"{len(stories) - closed} open"] if closed < len(stories) else []
    amounts += [f"{closed} closed"] if closed else []
    lines = [_heading("incidents", ", ".join(amounts), width)]
    for story in stories[: len(stories) - closed + _CLOSED]:
        lines += _story(story, width)
    return lines


def _story(story: Story, width: int) -> list[Line]:
    incident, insight = story.incident, story.insight
    word, style = ("closed", DIM) if story.closed else _severity(incident.severity)
    summary = incident.summary + whom(incident.subject, incident.summary)
    lines = _entry(
        _when(incident.opened_ns or incident.ts_ns, word, style, width),
        f"{printable(incident_name(incident), _LONGEST)}: {printable(summary, _LONGEST)}",
        DIM if story.closed else BOLD,
        width,
    )
    if insight is None or story.closed:
        return lines
    told = [("why", insight.why), *(("try", action) for action in insight.actions)]
    margin = 4 if width < _NARROW else 8
    for label, text in told:
        lines += _entry([(f"{label:>{margin}} ", DIM)], printable(text, _LONGEST), None, width)
    return lines


def _alerts(picture: Picture, width: int) -> list[Line]:
    if not picture.alerts:
        return []
    lines = [_heading("alerts", "newest first", width)]
    for alert in picture.alerts:
        word, style = _severity(alert.severity)
        message = printable(alert.message, _LONGEST) + whom(alert.subject, alert.message)
        said = (f"{printable(alert.rule, _LONGEST)}: {message}", None)
        lines.append(_fit([*_when(alert.ts_ns, word, style, width), said], width))
    return lines


def _troubles(picture: Picture, width: int) -> list[Line]:
    return [
        _fit(
            [
                (f"{printable(status.component)} {status.state}", _STATE.get(status.state, DIM)),
                (state_reason(status), None),
            ],
            width,
        )
        for status in picture.components
        if status.state not in ("available", "running")
    ]


def _messages(picture: Picture, width: int) -> list[Line]:
    return [
        _fit([(printable(message, _LONGEST), DIM)], width)
        for message in picture.messages[: -_MESSAGES - 1 : -1]
    ]


# --- from text to lines ---------------------------------------------------------------


def _heading(name: str, amount: str, width: int) -> Line:
    return _fit([(name.upper(), BOLD), (f"  {amount}", DIM)], width)


def _labelled(label: str, parts: Sequence[Part], width: int, style: Style | None = DIM) -> Line:
    head = f"{label} " if width < _NARROW else f"{label:<12}"
    return _fit([(head, style), *_spread(parts)], width)


def _when(ts_ns: int, word: str, style: Style | None, width: int) -> list[Part]:
    """What stands before an incident or an alert."""
    if width < _NARROW:
        return [(word, style), (" ", None)]
    return [(clock_time(ts_ns), DIM), (" ", None), (word, style), (" " * (9 - len(word)), None)]


def _entry(before: Sequence[Part], text: str, style: Style | None, width: int) -> list[Line]:
    """A text behind something, wrapped so that its rows start below each other."""
    indent = sum(cell_len(part) for part, _ in before)
    rows = _wrap(text, max(width - indent, 10))
    lines = [_fit([*before, (rows[0], style)], width)]
    lines += [_fit([(" " * indent, None), (row, style)], width) for row in rows[1:]]
    return lines


def _severity(severity: str) -> Part:
    return severity, _SEVERITY.get(severity)


def _spread(parts: Iterable[Part]) -> list[Part]:
    """The parts with a gap between them."""
    spread = [item for part in parts for item in (("   ", None), part)]
    return spread[1:]


def _fit(parts: Iterable[Part], width: int) -> Line:
    """One line, cut with an ellipsis where it is wider than the window."""
    line = []
    left = width
    for text, style in parts:
        size = cell_len(text)
        if size > left:
            if left > 0:
                line.append(Segment(set_cell_size(text, left - 1) + "…", style))
            break
        line.append(Segment(text, style))
        left -= size
    return line


@lru_cache(maxsize=256)
def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


@lru_cache(maxsize=256)
def _command(args: tuple[str, ...] | None, comm: str) -> str:
    return printable(" ".join(args) if args else comm, _LONGEST)


def _size(number: float) -> str:
    """Bytes in at most five characters, in powers of 1024.

    >>> _size(512), _size(123456789), _size(3.1 * 2**30)
    ('512B', '118M', '3.1G')
    """
    for unit in "BKMGT":
        if number < 1000 or unit == "T":
            break
        number /= 1024
    return f"{number:.1f}{unit}" if number < 10 and unit != "B" else f"{number:.0f}{unit}"
