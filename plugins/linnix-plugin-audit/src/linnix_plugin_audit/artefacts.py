"""Which rule a file breaks by its name or by how it begins."""

from __future__ import annotations

from linnix_plugin_audit.rulefile import Artefact, Rules

__all__ = ["begins_as", "named_artefact"]


def named_artefact(rules: Rules, path: str, enterprise: bool = False) -> Artefact | None:
    """The rule that the name of a file breaks in that edition."""
    for artefact in rules.artefacts:
        if (artefact.everywhere or not enterprise) and artefact.matching.match(path):
            return artefact
    return None


def begins_as(rules: Rules, head: bytes) -> Artefact | None:
    """The rule that the first bytes of a file break, whatever it is called."""
    for artefact in rules.artefacts:
        if artefact.beginnings and head.startswith(artefact.beginnings):
            return artefact
    return None
