"""An incident as one file that any reasoner, or a later test, can judge again.

A bundle holds the request exactly as a reasoner gets it (the incident with its evidence, tree
and origin, the facts, processes and allowed actions), the alerts that made the incident and
the insight that explained it. It is JSON, and as redacted as the records it was made of.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from linnix_core.__about__ import __version__
from linnix_core.codec import decode, plain
from linnix_core.errors import LinnixError
from linnix_core.incidents import fingerprint
from linnix_core.processes import ProcessTable
from linnix_core.reasoning import build_request
from linnix_core.records import (
    Alert,
    AllowedAction,
    Fact,
    Incident,
    IncidentClass,
    Insight,
    ProcessKey,
    ReasonRequest,
    RequestProcess,
)
from linnix_core.surroundings import Surroundings

__all__ = ["Bundle", "bundle_of", "dump_bundle", "load_bundle", "read_bundle", "write_bundle"]

#: The version of the format: it changes when a reader of the one before cannot read it.
SCHEMA = 1

#: What a file may hold at most; a bundle that Linnix wrote has about 20 kB.
MAX_BYTES = 4 * 2**20
MAX_ITEMS = 1024


@attrs.frozen
class Bundle:
    """One incident: what a reasoner is asked about it, its alerts, and what came of it."""

    request: ReasonRequest
    alerts: tuple[Alert, ...] = ()
    insight: Insight | None = None

    @classmethod
    def gathered(cls, request: ReasonRequest, records: Iterable[Any]) -> Bundle:
        """With those of some records that are alerts or the latest insight of the incident."""
        incident = request.incident
        alerts: deque[Alert] = deque(maxlen=MAX_ITEMS)
        insight: Insight | None = None
        for record in records:
            if type(record) is Insight and record.incident == incident.id:
                insight = record
            elif (
                type(record) is Alert
                and incident.opened_ns <= record.ts_ns <= incident.updated_ns
                and fingerprint(record) == incident.fingerprint
            ):
                alerts.append(record)
        return cls(request, tuple(alerts), insight)


def bundle_of(incident: Incident, records: Iterable[Any]) -> Bundle:
    """A bundle from history: of an incident, and the records up to its latest update.

    ``records`` are in the order of their time: events and samples rebuild the processes and
    the machine as they were, alerts and the insight of the incident are taken along.
    Records of other kinds, and of later, are passed over.
    """
    table, surroundings = ProcessTable(), Surroundings()
    notices: list[Alert | Insight] = []
    for record in records:
        if type(record) in (Alert, Insight):
            notices.append(record)
        elif record.ts_ns <= incident.updated_ns:
            table.update((record,))
            surroundings.update((record,))
    request = build_request(incident, table.view, surroundings=surroundings)
    return Bundle.gathered(request, notices)


def dump_bundle(bundle: Bundle) -> bytes:
    """The bundle as a JSON document that `load_bundle` takes."""
    document = {
        "type": "bundle",
        "schema": SCHEMA,
        "linnix": __version__,
        "request": plain(bundle.request),
        "alerts": plain(bundle.alerts),
        "insight": None if bundle.insight is None else plain(bundle.insight),
    }
    # ASCII, so that no name in it controls the terminal of somebody who looks at it.
    return json.dumps(document, indent=1, allow_nan=False).encode() + b"\n"


def load_bundle(data: bytes | str) -> Bundle:
    """The bundle of a JSON document. Raises ``ValueError`` that says what is wrong in it."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes are no bundle")
    try:
        document = msgspec.json.decode(data)
    except RecursionError:
        raise ValueError("nested too deeply to be a bundle") from None
    if not isinstance(document, dict) or document.get("type") != "bundle":
        raise ValueError('not a bundle: there is no "type": "bundle"')
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema {document.get('schema')!r:.20} is not {SCHEMA}, which is known")
    try:
        parts = msgspec.convert(document, _Document)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from None
    insight = None if parts.insight is None else _record(parts.insight, Insight, "insight")
    alerts = tuple(_record(a, Alert, f"alerts[{n}]") for n, a in enumerate(parts.alerts))
    return Bundle(_request(parts.request), alerts, insight)


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file. Raises `LinnixError` that names the file and what is wrong."""
    try:
        with path.open("rb") as file:
            return load_bundle(file.read(MAX_BYTES + 1))
    except (OSError, ValueError) as error:
        raise LinnixError(f"cannot read {path} as a bundle: {error}") from error


def write_bundle(bundle: Bundle, path: Path) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises `LinnixError`.

    A link stays one, and a pipe or a device is written to: a file in its place would be its end.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            path.write_bytes(dump_bundle(bundle))
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(dump_bundle(bundle))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LinnixError(f"cannot write {path}: {error}") from error


# --- what is in a document ------------------------------------------------------------


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    boot_id: str
    pid: int
    start_ns: int


class _Numbered(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class _Process(_Numbered, forbid_unknown_fields=True):
    key: _Key
    comm: str
    exe: str | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None


class _Fact(_Numbered, forbid_unknown_fields=True):
    name: str
    value: int | float
    unit: str
    process: str | None = None


class _Action(_Numbered, forbid_unknown_fields=True):
    text: str


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    incident: dict[str, Any]
    facts: list[_Fact]
    processes: list[_Process]
    actions: list[_Action]
    classes: list[IncidentClass]
    timeout_s: float = 30.0


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    schema: int
    request: _Request
    linnix: str = ""
    alerts: list[dict[str, Any]] = []
    insight: dict[str, Any] | None = None


def _request(parts: _Request) -> ReasonRequest:
    numbered: tuple[tuple[str, Sequence[_Numbered]], ...] = (
        ("f", parts.facts),
        ("P", parts.processes),
        ("a", parts.actions),
    )
    for letter, items in numbered:
        for number, item in enumerate(items, 1):
            if number > MAX_ITEMS or item.id != f"{letter}{number}":
                raise ValueError(f"the id {item.id!r:.20} should be {letter}{number}")
    known = {process.id for process in parts.processes}
    for fact in parts.facts:
        if abs(fact.value) >= 2**63:
            raise ValueError(f"the value of fact {fact.id} is out of range")
        if fact.process is not None and fact.process not in known:
            raise ValueError(f"fact {fact.id} is of {fact.process!r:.20}, which was not given")
    if not 0 < parts.timeout_s < float("inf"):
        raise ValueError(f"timeout_s cannot be {parts.timeout_s}")
    return ReasonRequest(
        incident=_record(parts.incident, Incident, "incident"),
        facts=tuple(Fact(f.name, f.value, f.unit, f.process, f.id) for f in parts.facts),
        processes=tuple(
            RequestProcess(
                p.id,
                ProcessKey(p.key.boot_id, p.key.pid, p.key.start_ns),
                p.comm,
                p.exe,
                p.cpu_percent,
                p.rss_bytes,
            )
            for p in parts.processes
        ),
        actions=tuple(AllowedAction(a.id, a.text) for a in parts.actions),
        classes=tuple(parts.classes),
        timeout_s=parts.timeout_s,
    )


def _record(document: dict[str, Any], cls: type, place: str) -> Any:
    try:
        record = decode(msgspec.json.encode(document))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: {error}") from None
    if type(record) is not cls:
        raise ValueError(f"{place} is {type(record).__name__}, not {cls.__name__}")
    return record
