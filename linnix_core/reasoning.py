"""From an incident to an insight: facts with numbers go out, ids come back.

A reasoner chooses; the core writes. The request names processes ``P1``…, facts ``f1``…
and allowed actions ``a1``…, and the answer holds nothing but such ids, a class and a
confidence. What people read is rendered here from what the ids stand for, so that a
sentence cannot say what no record said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from linnix_core.errors import LinnixError
from linnix_core.escape import printable
from linnix_core.processes import Process, ProcessView
from linnix_core.records import (
    CLASSES,
    AllowedAction,
    Answer,
    Fact,
    Incident,
    IncidentClass,
    Insight,
    ProcessSample,
    ReasonRequest,
    RequestProcess,
)

__all__ = ["NotGrounded", "build_request", "ground", "insight_document", "insight_schema"]

MAX_WHY = 120
MAX_PRIMARY_PROCESS = 120
MAX_ACTIONS = 3
MAX_ACTION = 160
MAX_FACTS = 40
MAX_CHILDREN = 3

#: Characters of a fact's name and unit in a sentence.
MAX_NAME = 40
MAX_UNIT = 16

#: How a class reads in a sentence.
CLASS_WORDS: dict[IncidentClass, str] = {
    "fork_storm": "Fork storm",
    "short_job_flood": "Flood of short jobs",
    "runaway_tree": "Runaway process tree",
    "cpu_spin": "CPU spin",
    "io_saturation": "I/O saturation",
    "oom_risk": "Risk of running out of memory",
    "normal": "Nothing unusual",
}

# What may be proposed, by class; the core fills in the process. Nothing here is carried
# out by Linnix, and nothing is irreversible before a person has looked.
_ACTIONS: dict[IncidentClass, tuple[str, ...]] = {
    "fork_storm": (
        "Look at the tree: pstree -aps {pid}",
        "Stop it from forking while you look: kill -STOP {pid}",
        "Bound its cgroup with pids.max (systemd: TasksMax=)",
    ),
    "short_job_flood": (
        "Look at the tree: pstree -aps {pid}",
        "Find what starts the jobs: the cron, CI or retry loop above pid {pid}",
        "Let one long-lived worker do them in batches",
    ),
    "runaway_tree": (
        "Look at the tree: pstree -aps {pid}",
        "Stop it from growing while you look: kill -STOP {pid}",
        "Bound its cgroup with pids.max (systemd: TasksMax=)",
    ),
    "cpu_spin": (
        "See where it spins: perf top -p {pid}",
        "Give others the CPU first: renice -n 10 -p {pid}",
        "Bound its cgroup with cpu.max (systemd: CPUQuota=)",
    ),
    "io_saturation": (
        "See who reads and writes: pidstat -d -p {pid} 1",
        "Give others the disk first: ionice -c 3 -p {pid}",
        "Bound its cgroup with io.max (systemd: IOWriteBandwidthMax=)",
    ),
    "oom_risk": (
        "See what holds the memory: cat /proc/{pid}/smaps_rollup",
        "Bound its cgroup with memory.high (systemd: MemoryHigh=)",
        "Restart it at a quiet moment, before the kernel chooses one",
    ),
    "normal": ("Watch whether it comes back",),
}


class NotGrounded(LinnixError):
    """An answer that does not fit the request: unknown ids, or numbers that no fact holds."""


# --- the request ----------------------------------------------------------------------


def build_request(
    incident: Incident,
    processes: ProcessView,
    *,
    extra: Iterable[Fact] = (),
    timeout_s: float = 30.0,
) -> ReasonRequest:
    """Number everything that a reasoner may refer to.

    ``P1`` is the subject; then its largest children and the top five by CPU and by
    memory. Facts are the incident's evidence, measurements of those processes, and what
    ``linnix_evidence`` added.
    """
    chosen = _choose(incident, processes)
    numbered = {process.key: f"P{n}" for n, process in enumerate(chosen, 1)}
    subject = numbered.get(incident.subject.key) if incident.subject.key else None
    facts = [Fact(e.name, e.value, e.unit, subject) for e in incident.evidence]
    facts.append(Fact("alerts", incident.alerts, "alerts", subject))
    facts.extend(_measurements(chosen, numbered))
    known = list(numbered.values())
    facts.extend(
        attrs.evolve(fact, process=fact.process if fact.process in known else None)
        for fact in extra
    )
    facts = [
        attrs.evolve(fact, name=printable(fact.name, MAX_NAME), unit=printable(fact.unit, MAX_UNIT))
        for fact in facts
        if _is_sound(fact)
    ]
    proposals = [*incident.actions, *_ACTIONS[incident.class_ or "normal"]]
    pid = incident.subject.key.pid if incident.subject.key else None
    return ReasonRequest(
        incident=incident,
        facts=tuple(attrs.evolve(fact, id=f"f{n}") for n, fact in enumerate(facts[:MAX_FACTS], 1)),
        processes=tuple(_request_process(numbered[p.key], p) for p in chosen),
        actions=tuple(
            AllowedAction(f"a{n}", text) for n, text in enumerate(_fill_in(proposals, pid), 1)
        ),
        timeout_s=timeout_s,
    )


def _choose(incident: Incident, processes: ProcessView) -> list[Process]:
    chosen: dict[Any, Process] = {}
    subject = incident.subject
    if subject.key is not None:
        found = processes.get(subject.key)
        chosen[subject.key] = found or Process(
            subject.key, comm=subject.comm, exe=subject.exe, cgroup=subject.cgroup
        )
        children = [child for child in processes.children(subject.key) if child.sample]
        children.sort(key=lambda child: _rss(child.sample) or 0, reverse=True)
        chosen.update((child.key, child) for child in children[:MAX_CHILDREN])
    for process in [
        *processes.top(5, by=lambda sample: sample.cpu_percent or None),
        *processes.top(5, by=_rss),
    ]:
        chosen.setdefault(process.key, process)
    return list(chosen.values())


def _rss(sample: ProcessSample | None) -> int | None:
    return (sample.rss_bytes if sample else None) or None


def _measurements(chosen: Sequence[Process], numbered: dict[Any, str]) -> Iterable[Fact]:
    for process in chosen:
        sample = process.sample
        if sample is None:
            continue
        if sample.cpu_percent is not None:
            yield Fact("CPU", round(sample.cpu_percent, 1), "%", numbered[process.key])
        if sample.rss_bytes is not None:
            yield Fact("RSS", round(sample.rss_bytes / 2**20, 1), "MiB", numbered[process.key])


def _request_process(process_id: str, process: Process) -> RequestProcess:
    sample = process.sample
    return RequestProcess(
        id=process_id,
        key=process.key,
        comm=process.comm,
        exe=process.exe,
        cpu_percent=sample.cpu_percent if sample else None,
        rss_bytes=sample.rss_bytes if sample else None,
    )


def _fill_in(texts: Iterable[str], pid: int | None) -> Iterable[str]:
    for text in filter(None, dict.fromkeys(texts)):
        if "{pid}" not in text:
            yield printable(text, MAX_ACTION)
        elif pid is not None:
            yield printable(text.replace("{pid}", str(pid)), MAX_ACTION)


def _is_sound(fact: Fact) -> bool:
    """Whether a fact, maybe of a plugin, has words and a number that JSON can hold."""
    return (
        isinstance(fact.name, str)
        and isinstance(fact.unit, str)
        and isinstance(fact.value, int | float)
        and abs(fact.value) < 2**63  # which neither infinity nor NaN is
    )


# --- the answer -----------------------------------------------------------------------


def ground(request: ReasonRequest, answer: Any, reasoner: str) -> Insight:
    """The insight that an answer stands for; `NotGrounded` says what it made up."""
    if not isinstance(answer, Answer):
        raise NotGrounded(f"the answer is {type(answer).__name__}, not Answer")
    facts = {fact.id: fact for fact in request.facts}
    processes = {process.id: process for process in request.processes}
    actions = {action.id: action for action in request.actions}
    if answer.class_ not in CLASSES:
        raise NotGrounded(f"{answer.class_!r} is no class")
    if type(answer.confidence) is not int or not 0 <= answer.confidence <= 100:
        raise NotGrounded(f"confidence must be a whole number up to 100, got {answer.confidence!r}")
    if answer.process is not None and answer.process not in list(processes):
        raise NotGrounded(f"process {answer.process!r} was not given")
    for kind, given, chosen in (
        ("fact", facts, answer.facts),
        ("action", actions, answer.actions),
    ):
        if not isinstance(chosen, tuple | list):
            raise NotGrounded(f"{kind}s must be a tuple of ids, got {chosen!r:.60}")
        unknown = [item for item in chosen if item not in list(given)]
        if unknown:
            raise NotGrounded(f"{kind} {unknown[0]!r} was not given")
    if not answer.facts:
        raise NotGrounded("no fact is cited")
    cited = tuple(facts[fact] for fact in dict.fromkeys(answer.facts))
    primary = processes[answer.process] if answer.process else None
    return Insight(
        class_=answer.class_,
        confidence=answer.confidence / 100,
        primary_process=_name(primary) if primary else None,
        why=_why(request, answer, cited, primary),
        actions=tuple(actions[item].text for item in dict.fromkeys(answer.actions))[:MAX_ACTIONS],
        incident=request.incident.id,
        reasoner=reasoner,
        facts=cited,
        grounded=True,
    )


def _name(process: RequestProcess) -> str:
    """``java (pid 4412)``: the kernel's name, bounded and harmless, never the arguments."""
    comm = printable(process.comm, 48) or "?"
    return printable(f"{comm} (pid {process.key.pid})", MAX_PRIMARY_PROCESS)


def _why(
    request: ReasonRequest,
    answer: Answer,
    cited: Sequence[Fact],
    primary: RequestProcess | None,
) -> str:
    offered = answer.sentence
    if isinstance(offered, str) and _says_only(offered, request, cited, primary):
        return offered
    said = CLASS_WORDS[answer.class_]
    if primary is not None:
        said += f" by {_name(primary)}"
    said = printable(said, MAX_WHY)
    separator = ": "
    for fact in cited:
        longer = f"{said}{separator}{_fact_words(fact, primary)}"
        if len(longer) > MAX_WHY:
            break
        said, separator = longer, ", "
    return said


def _fact_words(fact: Fact, primary: RequestProcess | None) -> str:
    amount, name, unit = number(fact.value), fact.name.replace("_", " "), fact.unit
    # A count names its unit already: "212 forks", not "forks 212 forks".
    if unit == name:
        words = f"{amount} {unit}"
    elif unit in ("%", "1", ""):
        words = f"{name} {amount}{'%' if unit == '%' else ''}"
    else:
        words = f"{name} {amount} {unit}"
    if fact.process is not None and (primary is None or fact.process != primary.id):
        words = f"{fact.process} {words}"
    return words


def number(value: float) -> str:
    """A value as people write it: at most three decimals, no trailing zeros.

    >>> number(212), number(97.5), number(0.12345), number(1e9), number(2.5e20)
    ('212', '97.5', '0.123', '1000000000', '2.5e+20')
    """
    if abs(value) >= 1e15:
        return f"{value:.6g}"
    if float(value).is_integer():
        return str(int(value))
    return f"{value:.3f}".rstrip("0").rstrip(".")


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", re.IGNORECASE)
_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|(?:hundred|thousand|million|billion|dozen)s?|half|twice|thrice|doubled?|tripled?)\b",
    re.IGNORECASE,
)


def _says_only(
    sentence: str,
    request: ReasonRequest,
    cited: Sequence[Fact],
    primary: RequestProcess | None,
) -> bool:
    """Whether a sentence fits the schema and every number in it comes from what was cited.

    A number may be a cited value, rounded to the digits that are shown, or the pid of the
    primary process; another process of the request must not be named.
    """
    if not 1 <= len(sentence) <= MAX_WHY or sentence != printable(sentence):
        return False
    allowed = {number(round(fact.value, digits)) for fact in cited for digits in range(4)}
    rest = sentence
    if primary is not None:
        allowed.add(str(primary.key.pid))
        if any(map(str.isalpha, primary.comm)):
            # Digits in its name are no numbers; a name of digits alone could hide one.
            rest = _as_word(primary.comm).sub(" ", rest)
    if any(character.isnumeric() and not character.isascii() for character in rest):
        return False
    if _NUMBER_WORD.search(rest) or any(n not in allowed for n in _NUMBER.findall(rest)):
        return False
    others = {p.comm for p in request.processes if primary is None or p.comm != primary.comm}
    return not any(_as_word(comm).search(sentence) for comm in others if comm)


def _as_word(comm: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(printable(comm, 48))}(?!\w)", re.IGNORECASE)


# --- the schema -----------------------------------------------------------------------


def insight_schema() -> dict[str, Any]:
    """The JSON Schema that `insight_document` fits and that clients are served."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Insight",
        "type": "object",
        "additionalProperties": False,
        "required": ["class", "confidence", "primary_process", "why", "actions"],
        "properties": {
            "class": {"type": "string", "enum": list(CLASSES)},
            "confidence": {"type": "number", "minimum": 0.0, "maximum": 1.0},
            "primary_process": {
                "oneOf": [
                    {"type": "null"},
                    {"type": "string", "minLength": 1, "maxLength": MAX_PRIMARY_PROCESS},
                ]
            },
            "why": {"type": "string", "minLength": 1, "maxLength": MAX_WHY},
            "actions": {
                "type": "array",
                "maxItems": MAX_ACTIONS,
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_ACTION},
            },
        },
    }


def insight_document(insight: Insight) -> dict[str, Any]:
    """The five keys of the insight schema."""
    return {
        "class": insight.class_,
        "confidence": insight.confidence,
        "primary_process": insight.primary_process,
        "why": insight.why,
        "actions": list(insight.actions),
    }
