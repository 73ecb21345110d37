"""Whether a distribution has a licence of its edition."""

from __future__ import annotations

import re
from collections.abc import Iterator

from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.rulefile import Rules

__all__ = ["identifiers", "licence_findings"]


def licence_findings(rules: Rules, enterprise: bool, said: object, path: str) -> Iterator[Finding]:
    """What is wrong with the licence that a distribution declares."""
    if not isinstance(said, str):
        yield Finding(path, rule="licence", message="license is no SPDX expression")
        return
    wanted = {rules.licences.enterprise} if enterprise else set(rules.licences.open)
    strange = sorted(identifiers(said) - wanted)
    if strange or not identifiers(said):
        edition = "enterprise" if enterprise else "open"
        yield Finding(
            path, rule="licence", message=f"license is {said!r}, which {edition} ones do not have"
        )


def identifiers(expression: str) -> set[str]:
    """The licences that an SPDX expression names; one that is none names itself.

    >>> sorted(identifiers("Apache-2.0 AND (GPL-2.0-only or MIT)"))
    ['Apache-2.0', 'GPL-2.0-only', 'MIT']
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        said: str = canonicalize_license_expression(expression)
    except InvalidLicenseExpression:
        return {expression}
    return set(re.split(r"[\s()]+", said)) - {"", "AND", "OR", "WITH"}
