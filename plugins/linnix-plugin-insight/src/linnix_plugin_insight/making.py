"""Examples from bundles, answered by rules of thumb and stripped of what names a host."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import attrs

from linnix_core import (
    AllowedAction,
    Answer,
    Bundle,
    LinnixError,
    ProcessKey,
    ReasonRequest,
    RequestProcess,
    Subject,
)
from linnix_plugin_insight.example import Example, Label, Source, rendered

__all__ = ["Ask", "anonymous", "corrected", "make_example", "name_of"]

#: A reasoner as a function.
Ask = Callable[[ReasonRequest], Answer | None]

#: Folders of programs that are alike on every machine; anything else tells about its owner.
_SYSTEM = re.compile(r"/(?:usr/(?:local/)?)?(?:s?bin|lib(?:exec|32|64)?)/")
_ELSEWHERE = "/opt/app/"

#: Names of a boot and of a run that no machine has.
_BOOT = "00000000-0000-4000-8000-000000000000"


def make_example(
    bundle: Bundle,
    ask: Ask,
    *,
    id: str | None = None,  # noqa: A002 - the word of the format
    label: Label | None = None,
    family: str | None = None,
    held_out: bool = False,
    source: Source = "recorded",
    notes: str = "",
) -> Example:
    """Have a bundle answered; the answer is corrected where a label says otherwise.

    Raises `LinnixError` where there is no answer, and `BadExample` for a label that does not fit.
    """
    answer = ask(bundle.request)
    if answer is None:
        raise LinnixError("the incident has no facts to answer by")
    if label is not None:
        answer = corrected(answer, label, bundle.request)
    return Example(
        id=id or name_of(bundle),
        bundle=attrs.evolve(bundle, insight=None),
        answer=answer,
        insight=rendered(bundle, answer),
        label=label,
        family=family,
        held_out=held_out,
        source=source,
        notes=notes,
    )


def corrected(answer: Answer, label: Label, request: ReasonRequest) -> Answer:
    """The answer with the class and process of the label, if it had others.

    What is normal blames nobody, and all there is to do is the last action: to wait and see.
    """
    if answer.class_ not in (label.class_, *label.also):
        answer = attrs.evolve(answer, class_=label.class_)
    if answer.class_ == "normal":
        actions = tuple(action.id for action in request.actions[-1:])
        return attrs.evolve(answer, process=None, actions=actions)
    if label.processes and answer.process not in label.processes:
        answer = attrs.evolve(answer, process=label.processes[0])
    return answer


def name_of(bundle: Bundle) -> str:
    """A name made of the content, so that the same incident has the same one."""
    request = bundle.request
    content = repr((request.incident.fingerprint, request.facts, request.processes))
    said = request.incident.class_ or "incident"
    return f"{said}-{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"


# --- what names a host ----------------------------------------------------------------


def anonymous(bundle: Bundle) -> Bundle:
    """The bundle without host, boot, run, tree, arguments, labels, cgroups, and without paths.

    Left are the facts, the names of the programs and pids. The folder of an executable stays
    where it is one of the system's.
    """
    request = bundle.request
    incident = request.incident
    # Those may quote anything; left is what the core proposes.
    said_by_rules = frozenset(incident.actions)
    incident = attrs.evolve(
        incident,
        subject=_subject(incident.subject),
        summary=" ".join(filter(None, (incident.class_ or "incident", incident.subject.comm))),
        fingerprint=hashlib.blake2b(incident.fingerprint.encode(), digest_size=8).hexdigest(),
        actions=(),
        origin=None,
        tree=(),
        labels=None,
        id="incident",
        host="",
        run_id="",
        boot_id=_BOOT,
        seq=0,
    )
    own = [action.text for action in request.actions if action.text not in said_by_rules]
    return Bundle(
        attrs.evolve(
            request,
            incident=incident,
            processes=tuple(map(_request_process, request.processes)),
            actions=tuple(AllowedAction(f"a{n}", text) for n, text in enumerate(own, 1)),
        )
    )


def _key(key: ProcessKey | None) -> ProcessKey | None:
    return key and ProcessKey(_BOOT, key.pid, key.start_ns)


def _subject(subject: Subject) -> Subject:
    return Subject(_key(subject.key), _path(subject.exe), subject.comm, None)


def _request_process(process: RequestProcess) -> RequestProcess:
    return attrs.evolve(
        process,
        key=ProcessKey(_BOOT, process.key.pid, process.key.start_ns),
        exe=_path(process.exe),
    )


def _path(exe: str | None) -> str | None:
    if exe is None or _SYSTEM.match(exe):
        return exe
    return _ELSEWHERE + exe.rpartition("/")[2]
