"""What an audit finds, as text, JSON and SARIF 2.1.0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import quote

import attrs

from linnix_core import printable
from linnix_plugin_audit.__about__ import __version__

__all__ = ["RULES", "Finding", "as_json", "as_sarif", "as_text"]

#: The rules that are not in the file, with what they mean; those of the file bring their own.
RULES = {
    "enterprise-import": "An open distribution imports an enterprise module.",
    "enterprise-requirement": "An open distribution requires an enterprise distribution.",
    "personal-import": "A generic distribution imports one of a person.",
    "training-import": "An open distribution imports a library that trains models.",
    "licence": "A distribution has a licence that its edition does not have.",
    "licence-file": "A distribution lacks the text of its licence.",
    "header": "A file says another licence than it has, or none where it has to.",
    "large-file": "A file is larger than files of the open edition may be.",
    "tree-size": "The files are larger together than they may be.",
    "history-size": "The history is larger than it may be.",
    "example-records": "The open edition holds more example records than it may.",
    "personal-word": "A generic file names a person, a machine or a site.",
    "history-incomplete": "The history was not fetched whole, so nobody can tell.",
    "unreadable": "A file cannot be looked at.",
}


@attrs.frozen(order=True)
class Finding:
    """One thing that breaks a rule: ``where`` is ``tree``, ``history``, or a wheel's name."""

    path: str
    line: int | None = attrs.field(default=None, order=lambda line: line or 0)
    rule: str = ""
    message: str = ""
    where: str = "tree"
    commit: str | None = attrs.field(default=None, order=lambda commit: commit or "")
    size: int | None = attrs.field(default=None, order=False)


def as_text(findings: Sequence[Finding]) -> str:
    """One line each: place, rule, message."""
    lines = []
    for found in findings:
        place = printable(found.path)
        if found.where != "tree":
            place = f"{printable(found.where)}: {place}"
        if found.line is not None:
            place += f":{found.line}"
        if found.commit is not None:
            place += f" ({found.commit[:12]})"
        lines.append(f"{place}: {found.rule}: {printable(found.message)}")
    return "\n".join(lines)


def as_json(kind: Literal["split", "segregation"], findings: Sequence[Finding]) -> str:
    """``{"audit", "clean", "findings"}``."""
    listed = [
        {**attrs.asdict(found), "path": _plain(found.path), "message": _plain(found.message)}
        for found in findings
    ]
    return json.dumps({"audit": kind, "clean": not listed, "findings": listed}, indent=2)


def _plain(text: str) -> str:
    """Text that can be encoded: bytes that were none are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_sarif(findings: Sequence[Finding], messages: dict[str, str]) -> str:
    """A SARIF 2.1.0 log (OASIS), as code scanning takes it."""
    rules = sorted({found.rule for found in findings})
    described = [
        {
            "id": rule,
            "shortDescription": {"text": messages.get(rule) or RULES.get(rule, rule)},
            "defaultConfiguration": {"level": "error"},
        }
        for rule in rules
    ]
    driver = {"name": "linnix-audit", "version": __version__, "rules": described}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "the repository"}}},
        "results": [_result(found, rules.index(found.rule)) for found in findings],
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
    return json.dumps({"version": "2.1.0", "$schema": schema, "runs": [run]}, indent=2)


def _result(found: Finding, index: int) -> dict[str, Any]:
    uri = quote(found.path.encode("utf-8", "surrogateescape"))
    place: dict[str, Any] = {"artifactLocation": {"uri": uri, "uriBaseId": "SRCROOT"}}
    if found.line is not None:
        place["region"] = {"startLine": found.line}
    said = _plain(found.message)
    if found.where != "tree":
        said = f"{_plain(found.where)}: {said}"
    if found.commit is not None:
        said += f" (commit {found.commit})"
    return {
        "ruleId": found.rule,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": said},
        "locations": [{"physicalLocation": place}],
    }
