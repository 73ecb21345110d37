"""The split into an open and an enterprise edition: does it hold, in files, history, wheels?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from linnix_plugin_audit.artefacts import begins_as, named_artefact
from linnix_plugin_audit.code import imports
from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.licences import identifiers, licence_findings
from linnix_plugin_audit.rulefile import Artefact
from linnix_plugin_audit.tree import Distribution, Tree
from linnix_plugin_audit.wheels import wheel_findings

__all__ = ["artefacts_in", "audit_split", "enterprise_modules"]

# Where a comment begins with it; what only speaks of such lines has words before.
_SPDX = re.compile(r"^\W*SPDX-License-Identifier:[ \t]*([^\n\r*]+)", re.MULTILINE)

#: The licence of a file is in so much of its beginning.
_HEADER_BYTES = 1024

#: So much of a file of records is read.
_RECORDS_BYTES = 2**24


def audit_split(tree: Tree, *, history: bool = True, wheels: Iterable[Path] = ()) -> list[Finding]:
    """Everything that breaks the split, sorted; what is allowed is left out."""
    found = [
        *artefacts_in(tree),
        *_imports(tree),
        *_licences(tree),
        *_headers(tree),
        *_sizes(tree),
        *_records(tree),
    ]
    if history:
        known = {(each.rule, each.path) for each in found}
        found += [each for each in _history(tree) if (each.rule, each.path) not in known]
    for wheel in wheels:
        found += wheel_findings(wheel, tree.rules, enterprise_modules(tree))
    found += tree.problems
    return sorted({each for each in found if not tree.allowed(each)})


# --- artefacts ----------------------------------------------------------------------------


def artefacts_in(tree: Tree) -> Iterator[Finding]:
    """Files of the tree that the open edition must not hold, by their name or beginning."""
    longest = _longest(tree)
    for path, size in tree.sizes.items():
        enterprise = tree.is_enterprise(path)
        artefact = named_artefact(tree.rules, path, enterprise)
        if artefact is None and not enterprise and longest:
            artefact = begins_as(tree.rules, tree.head(path, longest))
        if artefact is not None:
            yield Finding(path, rule=artefact.rule, message=artefact.message, size=size)


def _history(tree: Tree) -> Iterator[Finding]:
    """What was committed once and can still be fetched."""
    if tree.repository.shallow:
        yield Finding(
            "", rule="history-incomplete", where="history",
            message="the clone is shallow: git fetch --unshallow",
        )  # fmt: skip
    # The first commit that brought a file is the last that is listed.
    brought = {(each.path, each.blob): each.commit for each in tree.repository.history()}
    sizes = tree.repository.sizes({blob for _, blob in brought})
    missing = len({blob for _, blob in brought} - sizes.keys())
    if missing:
        yield Finding(
            "", rule="history-incomplete", where="history",
            message=f"{missing} files of old commits are missing: git fetch --refetch",
        )  # fmt: skip
    limit = tree.rules.limits.file
    enterprise = {path: tree.is_enterprise(path) for path, _ in brought}
    named = {path: named_artefact(tree.rules, path, enterprise[path]) for path in enterprise}
    beginning = dict(_beginnings(tree, {blob for path, blob in brought if not enterprise[path]}))
    found: dict[tuple[str, str], Finding] = {}
    for (path, blob), commit in brought.items():
        size = sizes.get(blob, (0, 0))[0]
        artefact = named[path] or (None if enterprise[path] else beginning.get(blob))
        if artefact is not None:
            rule, message = artefact.rule, artefact.message
        elif size > limit and not enterprise[path]:
            rule, message = "large-file", _larger(size, limit)
        else:
            continue
        found[rule, path] = Finding(
            path, rule=rule, message=message, where="history", commit=commit, size=size
        )
    yield from found.values()
    stored = sum(stored for _, stored in sizes.values())
    if stored > tree.rules.limits.history:
        yield Finding(
            "", rule="history-size", message=_larger(stored, tree.rules.limits.history),
            where="history", size=stored,
        )  # fmt: skip


def _beginnings(tree: Tree, blobs: set[str]) -> Iterator[tuple[str, Artefact]]:
    """The blobs that begin as no open file may, with the rule that they break."""
    for blob, head in tree.repository.contents(sorted(blobs), _longest(tree)):
        artefact = begins_as(tree.rules, head)
        if artefact is not None:
            yield blob, artefact


def _longest(tree: Tree) -> int:
    beginnings = [each for rule in tree.rules.artefacts for each in rule.beginnings]
    return max(map(len, beginnings), default=0)


def _larger(size: int, limit: int) -> str:
    return f"{size:,} bytes, and {limit:,} are the limit"


# --- code ---------------------------------------------------------------------------------


def enterprise_modules(tree: Tree) -> dict[str, str]:
    """The modules of enterprise distributions, and which one each is of."""
    marker = tree.rules.editions.marker
    modules = {marker.replace("-", "_"): marker}
    return modules | {each.module: each.name for each in tree.distributions if each.enterprise}


def _imports(tree: Tree) -> Iterator[Finding]:
    enterprise = enterprise_modules(tree)
    training = set(tree.rules.imports.training)
    for each in tree.distributions:
        if not each.enterprise:
            for name in sorted(each.requires & set(enterprise.values())):
                yield Finding(
                    each.pyproject, rule="enterprise-requirement",
                    message=f"{each.name} is open and requires {name}",
                )  # fmt: skip
    for path in tree.sizes:
        if not path.endswith((".py", ".pyi")) or tree.is_enterprise(path):
            continue
        for line, module in imports(tree.text(path) or ""):
            if module in enterprise:
                yield Finding(
                    path, line, "enterprise-import", f"imports {module} of {enterprise[module]}"
                )
            elif module in training:
                yield Finding(path, line, "training-import", f"imports {module}, which trains")


# --- licences -----------------------------------------------------------------------------


def _licences(tree: Tree) -> Iterator[Finding]:
    for each in tree.distributions:
        said = each.project.get("license")
        yield from licence_findings(tree.rules, each.enterprise, said, each.pyproject)
        if each.enterprise and not _has_text(tree, each):
            yield Finding(
                each.pyproject, rule="licence-file",
                message=f"{each.name} has no file LICENSE that names "
                f"{tree.rules.licences.enterprise}",
            )  # fmt: skip


def _has_text(tree: Tree, each: Distribution) -> bool:
    text = tree.text(f"{each.folder}LICENSE") if f"{each.folder}LICENSE" in tree.sizes else None
    return tree.rules.licences.enterprise in (text or "")


def _headers(tree: Tree) -> Iterator[Finding]:
    rules = tree.rules
    known = {*rules.licences.open, rules.licences.enterprise}
    for path in tree.sizes:
        head = tree.head(path, _HEADER_BYTES)
        match = _SPDX.search(head.decode("utf-8", "replace")) if b"SPDX-" in head else None
        said = match[1].removesuffix("-->").strip(" \t*/\"'") if match else None
        must = next((each.licence for each in rules.headers if each.matching.match(path)), None)
        if must is not None and said != must:
            yield Finding(path, 1, "header", f"says {said or 'no licence'}, and has {must}")
        elif said is not None:
            wanted = known if tree.is_enterprise(path) else set(rules.licences.open)
            if identifiers(said) - wanted:
                yield Finding(path, 1, "header", f"says {said}, which is not of its edition")


# --- sizes and records --------------------------------------------------------------------


def _sizes(tree: Tree) -> Iterator[Finding]:
    limits = tree.rules.limits
    for path, size in tree.sizes.items():
        if size > limits.file and not tree.is_enterprise(path):
            artefact = named_artefact(tree.rules, path)
            reviewed = artefact is not None and tree.allowed(
                Finding(path, rule=artefact.rule, size=size)
            )
            if not reviewed:
                yield Finding(
                    path, rule="large-file", message=_larger(size, limits.file), size=size
                )
    whole = sum(tree.sizes.values())
    if whole > limits.tree:
        yield Finding("", rule="tree-size", message=_larger(whole, limits.tree), size=whole)


def _records(tree: Tree) -> Iterator[Finding]:
    for rule in tree.rules.records:
        held: dict[str, int] = {}
        for path in tree.sizes:
            mine = Finding(path, rule=rule.rule)
            if rule.matching.match(path) and not (tree.is_enterprise(path) or tree.allowed(mine)):
                text = tree.head(path, _RECORDS_BYTES).decode("utf-8", "replace")
                held[path] = examples_in(text, rule.keys)
        total = sum(held.values())
        if total > rule.most:
            yield from (
                Finding(
                    path, rule=rule.rule, size=tree.sizes[path],
                    message=f"{count} of {total} examples for a training, and {rule.most} are open",
                )
                for path, count in held.items() if count
            )  # fmt: skip


def examples_in(text: str, keys: Iterable[Iterable[str]]) -> int:
    """How many records of a JSON or JSON lines text have all keys of one of these sets."""
    wanted = [frozenset(each) for each in keys]
    try:
        whole = json.loads(text)
        records = whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        records = []
        for line in text.splitlines():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return sum(
        isinstance(record, Mapping) and any(each <= record.keys() for each in wanted)
        for record in records
    )
