"""Texts of a rule with placeholders: messages and suggested actions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping

import attrs

from linnix_core import printable
from linnix_plugin_rules.detector import Finding

__all__ = ["PLACEHOLDERS", "Template", "template"]

#: Longest text that replaces a placeholder, and longest template.
MAX_VALUE, MAX_TEMPLATE = 200, 400

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

PLACEHOLDERS: dict[str, Callable[[Finding], object]] = {
    "summary": lambda finding: finding.message,
    "value": lambda finding: f"{finding.evidence[0].value:g}",
    "limit": lambda finding: f"{finding.evidence[1].value:g}",
    "unit": lambda finding: finding.evidence[0].unit,
    "process": lambda finding: finding.process or str(finding.about),
    "pid": lambda finding: finding.process.pid if finding.process else "?",
    "comm": lambda finding: finding.subject.comm or "?",
    "exe": lambda finding: finding.subject.exe or "?",
    "cgroup": lambda finding: finding.subject.cgroup or "?",
}


#: What a process chose and a command of a shell may be given.
_NAMES = ("comm", "exe", "cgroup")


@attrs.frozen
class Template:
    """A text with placeholders such as ``{value}``; doubled braces stand for single ones.

    With ``quoted`` it may be a command for a shell, to which a name is one word.
    """

    text: str
    quoted: bool = False

    def render(self, finding: Finding) -> str:
        """One line for people, in which nothing that a process chose does harm."""
        values: Mapping[str, Callable[[Finding], object]] = PLACEHOLDERS

        def fill(found: re.Match[str]) -> str:
            if found[1] is None:
                return found[0][0]
            limit = None if found[1] == "summary" else MAX_VALUE
            text = printable(str(values[found[1]](finding)), limit=limit)
            return shlex.quote(text) if self.quoted and found[1] in _NAMES else text

        return _PLACEHOLDER.sub(fill, self.text)


def template(value: object, *, quoted: bool = False) -> Template:
    """A template; ``ValueError`` names a placeholder that there is not."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("expected a text of one line")
    if len(value) > MAX_TEMPLATE:
        raise ValueError(f"expected a text of at most {MAX_TEMPLATE} characters")
    for found in _PLACEHOLDER.finditer(value):
        if found[0] in ("{", "}"):
            raise ValueError("expected braces in pairs, doubled where they stand for themselves")
        if found[1] is not None and found[1] not in PLACEHOLDERS:
            raise ValueError(f"expected placeholders {', '.join(PLACEHOLDERS)}")
    return Template(value, quoted)
