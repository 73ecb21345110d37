"""From an answer to an insight: the ids are checked, and the words are written here.

A sentence of a model is used only where it cannot say what no record said: its words are
those of `linnix_core.vocabulary`, of the cited facts and the name of the process that it
blames, and its numbers are those of the cited facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from linnix_core.errors import LinnixError
from linnix_core.escape import printable
from linnix_core.records import (
    CLASSES,
    Answer,
    Fact,
    IncidentClass,
    Insight,
    ReasonRequest,
    RequestProcess,
)
from linnix_core.vocabulary import UNITS, WORDS

__all__ = ["NotGrounded", "ground", "number", "sentence_is_grounded"]

MAX_WHY = 120
MAX_PRIMARY_PROCESS = 120
MAX_ACTIONS = 3

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


class NotGrounded(LinnixError):
    """An answer that does not fit the request: unknown ids, or numbers that no fact holds."""


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
    if answer.sentence is not None and _says_only(answer.sentence, request, cited, primary):
        return answer.sentence
    said = CLASS_WORDS[answer.class_]
    if primary is not None:
        said += f" by {_name(primary)}"
    said = printable(said, MAX_WHY)
    separator = ": "
    for fact in cited:
        longer = f"{said}{separator}{_fact_words(fact, request, primary)}"
        if len(longer) > MAX_WHY:
            break
        said, separator = longer, ", "
    return said


def _fact_words(fact: Fact, request: ReasonRequest, primary: RequestProcess | None) -> str:
    amount = number(fact.value)
    name, unit = fact.name.replace("_", " "), fact.unit.replace("_", " ")
    # A count names its unit already: "212 forks", not "forks 212 forks".
    if unit == name:
        words = f"{amount} {unit}"
    elif unit in ("%", "1", ""):
        words = f"{name} {amount}{'%' if unit == '%' else ''}"
    else:
        words = f"{name} {amount} {unit}"
    if fact.process is not None and (primary is None or fact.process != primary.id):
        owner = next((p for p in request.processes if p.id == fact.process), None)
        words = f"{printable(owner.comm, 16) or '?'} {words}" if owner else words
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


# --- a sentence of the model ----------------------------------------------------------


def sentence_is_grounded(request: ReasonRequest, answer: Answer) -> bool:
    """Whether the sentence of an answer that `ground` takes is used as the insight's ``why``."""
    cited = [fact for fact in request.facts if fact.id in answer.facts]
    primary = next((p for p in request.processes if p.id == answer.process), None)
    return _says_only(answer.sentence, request, cited, primary)


#: A number with the word or sign that follows it, or a word, or anything else that shows.
_TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)(?:\s*(?P<unit>%|[a-z]+(?:/[a-z]+)?))?"
    r"|(?P<word>[a-z]+(?:'[a-z]+)?)|(?P<other>\S)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_MARKS = frozenset(".,;:()/'\"-+&<>=%")


def _says_only(
    sentence: Any,
    request: ReasonRequest,
    cited: Sequence[Fact],
    primary: RequestProcess | None,
) -> bool:
    """Whether a sentence fits the schema and says nothing that was not cited.

    A number may be a cited value, rounded to the digits that are shown and in its own
    unit, or the pid of the primary process. No other process may be named.
    """
    if not isinstance(sentence, str) or not 1 <= len(sentence) <= MAX_WHY:
        return False
    if not sentence.isascii() or sentence != printable(sentence):
        return False
    names = {primary.comm, (primary.exe or "").rpartition("/")[2]} if primary else set()
    rest = sentence
    for name in sorted(names, key=len, reverse=True):
        # Digits in its name are no numbers; a name of digits alone could hide one.
        if any(map(str.isalpha, name)):
            rest = _as_word(name).sub(" ", rest)
    others = {process.comm for process in request.processes} - names
    others |= {process.comm for process in request.incident.tree} - names
    if any(_as_word(comm).search(sentence) for comm in others if comm):
        return False
    spoken = {word.lower() for f in cited for word in _WORD.findall(f"{f.name} {f.unit}")}
    for token in _TOKEN.finditer(rest):
        if token["number"] and not _is_cited(token["number"], token["unit"], cited, primary):
            return False
        word = token["word"] or token["unit"]
        if word and word.lower() not in UNITS and not {*word.lower().split("/")} <= WORDS | spoken:
            return False
        if token["other"] and token["other"] not in _MARKS:
            return False
    return True


def _is_cited(
    said: str, unit: str | None, cited: Sequence[Fact], primary: RequestProcess | None
) -> bool:
    units = {
        fact.unit for fact in cited if said in {number(round(fact.value, n)) for n in range(4)}
    }
    wanted = UNITS.get((unit or "").lower())
    if wanted is not None:
        return wanted in units
    return bool(units) or (primary is not None and said == str(primary.key.pid))


def _as_word(comm: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(printable(comm, 48))}(?!\w)", re.IGNORECASE)
