"""The segregation audit: nothing of one person, machine or site in what is generic."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from linnix_plugin_audit.artefacts import named_artefact
from linnix_plugin_audit.code import imports
from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.rulefile import Names, Pattern
from linnix_plugin_audit.tree import MAX_TEXT, Tree, allowed_text

__all__ = ["audit_segregation"]

#: Of each file so many findings of one rule are told.
_MOST = 20


def audit_segregation(tree: Tree, *, history: bool = True) -> list[Finding]:
    """Everything personal in generic files, and keys anywhere and ever, sorted."""
    excepted = Names(tree.rules.segregation.excepted)
    patterns = [*tree.rules.patterns, *_words(tree)]
    found: list[Finding] = []
    for path, size in tree.sizes.items():
        artefact = named_artefact(tree.rules, path, enterprise=True)
        if artefact is not None:
            found.append(Finding(path, rule=artefact.rule, message=artefact.message, size=size))
        generic = not tree.is_personal(path) and excepted.match(path) is None
        asked = [each for each in patterns if generic or each.everywhere]
        text = tree.text(path) if asked else None
        if text is not None:
            for each in asked:
                found += _in_text(tree, path, text, each)
        if generic and path.endswith(".py") and text is not None:
            found += _imports(tree, path, text)
    if history:
        known = {(each.rule, each.path) for each in found}
        found += [each for each in _history(tree) if (each.rule, each.path) not in known]
    found += tree.problems
    return sorted({each for each in found if not tree.allowed(each)})


def _words(tree: Tree) -> Iterator[Pattern]:
    words = [word for word in tree.rules.segregation.words if word]
    if words:
        joined = "|".join(map(re.escape, words))
        yield Pattern(
            "personal-word",
            "the name of a person, machine or site",
            rf"(?i)(?<![A-Za-z0-9])(?:{joined})(?![A-Za-z0-9])",
        )


def _in_text(tree: Tree, path: str, text: str, pattern: Pattern) -> list[Finding]:
    found: list[Finding] = []
    for match in pattern.expression.finditer(text):
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.start())
        line = text[start : end if end >= 0 else len(text)]
        if allowed_text(tree.rules, pattern.rule, path, line):
            continue
        # What a key is nobody needs to read here.
        said = "" if pattern.everywhere else f": {match[0][:80]}"
        number = text.count("\n", 0, match.start()) + 1
        found.append(Finding(path, number, pattern.rule, f"holds {pattern.message}{said}"))
        if len(found) == _MOST:
            break
    return found


def _history(tree: Tree) -> Iterator[Finding]:
    """What no file may ever have held; whoever has the history has it still."""
    everywhere = [each for each in tree.rules.patterns if each.everywhere]
    brought: dict[str, tuple[str, str]] = {}
    for change in tree.repository.history():
        brought[change.blob] = change.path, change.commit
    for blob, data in tree.repository.contents(sorted(brought), MAX_TEXT):
        if b"\0" in data[:8192]:
            continue
        path, commit = brought[blob]
        text = data.decode("utf-8", "surrogateescape")
        for pattern in everywhere:
            for found in _in_text(tree, path, text, pattern)[:1]:
                yield attrs.evolve(found, where="history", commit=commit)


def _imports(tree: Tree, path: str, text: str) -> Iterator[Finding]:
    personal = {each.module: each.name for each in tree.distributions if each.personal}
    for line, module in imports(text) if personal else ():
        if module in personal:
            message = f"imports {module} of {personal[module]}"
            yield Finding(path, line, "personal-import", message)
