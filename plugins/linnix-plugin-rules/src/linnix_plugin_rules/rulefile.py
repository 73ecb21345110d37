"""The file of rules, read and checked: every mistake at once, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from linnix_core import CLASSES, SEVERITIES, LinnixError
from linnix_plugin_rules.detector import Detector, Scope, number
from linnix_plugin_rules.detectors import DETECTORS
from linnix_plugin_rules.engine import Rule
from linnix_plugin_rules.matching import EVERYBODY, Match, Selection, patterns, regex, users
from linnix_plugin_rules.syntax import (
    Fields,
    Mistake,
    NotThisSyntax,
    Table,
    closest,
    shown,
    tables_of,
)
from linnix_plugin_rules.templates import Template, template

__all__ = ["Mistake", "RuleFile", "RuleFileError", "parse_rules", "read_rules", "read_text"]

#: The rules that are used when no file is named, inside this package.
DEFAULT_RULES = "default_rules.yaml"

MAX_BYTES = 2**20

COMMON_KEYS = (
    "name", "detector", "severity", "class", "cooldown", "scope", "match", "except", "labels",
    "message", "actions",
)  # fmt: skip

FILTERS: dict[str, Callable[[object], Any]] = {
    "exe": patterns,
    "args": regex,
    "user": users,
    "cgroup": patterns,
    "ancestor": patterns,
}


class RuleFileError(LinnixError):
    """The rules cannot be used; ``mistakes`` holds all of them in the order of their lines."""

    exit_code = 2

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        self.source = source
        # Once each, however often an alias repeats where it stands.
        self.mistakes = tuple(sorted(set(mistakes)))
        super().__init__(
            "\n".join(
                f"{source}:{mistake.line}: {mistake.reason}"
                if mistake.line
                else f"{source}: {mistake.reason}"
                for mistake in self.mistakes
            )
        )


@attrs.frozen
class RuleFile:
    """Rules that can run, and the tests that stand beside them, still as tables."""

    source: str
    rules: tuple[Rule, ...]
    words: tuple[str, ...] = ()
    tests: tuple[Table, ...] = ()


def read_rules(path: Path | None = None) -> RuleFile:
    """The rules of a YAML or TOML file, or those that are shipped. Raises `RuleFileError`.

    The ending of the name tells which of the two is tried first.
    """
    if path is None:
        resource = files("linnix_plugin_rules") / DEFAULT_RULES
        return parse_rules(resource.read_text(encoding="utf-8"), DEFAULT_RULES)
    return parse_rules(read_text(path), str(path), toml_first=path.suffix == ".toml")


def parse_rules(text: str, source: str, *, toml_first: bool = False) -> RuleFile:
    """The rules of a text. Raises `RuleFileError` with every mistake in it."""
    mistakes: list[Mistake] = []
    try:
        document = tables_of(text, mistakes, toml_first=toml_first)
    except NotThisSyntax as error:
        raise RuleFileError(source, [error.mistake]) from None
    top = Fields(document, mistakes)
    listed = _tables(top.take("rules", _list), "a rule", top.line("rules"), mistakes)
    rules = _check(listed, mistakes)
    tests = _tables(top.take("tests", _list), "a test", top.line("tests"), mistakes)
    for entry in document.entries:
        if entry.key not in ("rules", "tests"):
            reason = f"only 'rules' and 'tests' can stand here, got {shown(entry.key)}"
            mistakes.append(Mistake(entry.line, reason))
    if tests:
        # Not before: who has no tests has no need of it.
        from linnix_plugin_rules.trials import parse_trials

        parse_trials(tests, [rule.name for rule, _ in rules], mistakes)
    if mistakes:
        raise RuleFileError(source, mistakes)
    return RuleFile(
        source,
        tuple(rule for rule, _ in rules),
        tuple(word for _, word in rules),
        tuple(tests),
    )


def read_text(path: Path) -> str:
    """The text of a file of rules. Raises `RuleFileError`."""

    def wrong(reason: str) -> RuleFileError:
        return RuleFileError(str(path), [Mistake(0, reason)])

    try:
        if not path.exists():
            raise wrong("there is no such file")
        if not path.is_file():
            raise wrong("not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise wrong(f"larger than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RuleFileError(str(path), [Mistake(line, "not UTF-8 text")]) from None


# --- tables to rules ------------------------------------------------------------------


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return value


def _tables(values: list[Any] | None, what: str, line: int, mistakes: list[Mistake]) -> list[Table]:
    lines = getattr(values, "lines", ()) or [line] * len(values or ())
    for value, at in zip(values or (), lines, strict=True):
        if not isinstance(value, Table):
            mistakes.append(Mistake(at, f"expected {what}, got {shown(value)}"))
    return [value for value in values or () if isinstance(value, Table)]


def _check(tables: list[Table], mistakes: list[Mistake]) -> list[tuple[Rule, str]]:
    rules: list[tuple[Rule, str]] = []
    names: dict[str, int] = {}
    for table in tables:
        fields = Fields(table, mistakes)
        name = fields.take("name", _name, required=True)
        if name in names:
            fields.wrong("name", f"the rule in line {names[name]} is called {name!r} as well")
        elif name is not None:
            names[name] = table.line
        word = fields.take("detector", _one_of(tuple(DETECTORS)), required=True)
        common = {
            "severity": fields.take("severity", _one_of(SEVERITIES)),
            "cooldown_s": fields.take("cooldown", _cooldown),
            "message": fields.take("message", template),
            "labels": _labels(fields, mistakes),
            "actions": fields.take("actions", _actions),
        }
        given = {key: value for key, value in common.items() if value is not None}
        class_ = table.get("class")
        if class_ is not None and class_.value is None:
            given["class_"] = None  # null: of no class, whatever the detector
        elif (named := fields.take("class", _one_of(CLASSES))) is not None:
            given["class_"] = named
        if word is None:
            options = dict.fromkeys(key for cls in DETECTORS.values() for key in _keys(cls))
            fields.only([*COMMON_KEYS, *options])
            continue
        detector = _build(DETECTORS[word], fields, word, mistakes)
        if detector is not None and name is not None:
            given = {"class_": detector.class_} | given
            rules.append((Rule(name, detector, **given), word))
    return rules


def _build(
    cls: type[Detector], fields: Fields, word: str, mistakes: list[Mistake]
) -> Detector | None:
    before = len(mistakes)
    options: dict[str, Any] = {}
    for key, (parse, required) in _keys(cls).items():
        value = fields.take(key, parse, required=required, of=word)
        if value is not None:
            options[key] = value
    fields.only([*COMMON_KEYS, *_keys(cls)])
    scope: Scope | None = fields.take("scope", _one_of(cls.scopes))
    if scope is not None:
        options["scope"] = scope
    match, exception = (_match(fields, key, cls, mistakes) for key in ("match", "except"))
    if match or exception:
        options["selection"] = Selection(match, exception)
    else:
        options["selection"] = EVERYBODY
    return cls(**options) if len(mistakes) == before else None


def _match(fields: Fields, key: str, cls: type[Detector], mistakes: list[Mistake]) -> Match | None:
    table = fields.take(key, _mapping)
    if table is None:
        return None
    if not cls.filters:
        fields.wrong(key, f"{key}: this detector measures the machine and has no filters")
        return None
    inner = Fields(table, mistakes)
    inner.only(cls.filters)
    found = {name: inner.take(name, FILTERS[name]) for name in cls.filters}
    return Match(**found) if any(found.values()) else None


def _labels(fields: Fields, mistakes: list[Mistake]) -> dict[str, str] | None:
    table = fields.take("labels", _mapping)
    if table is None:
        return None
    inner = Fields(table, mistakes)
    for entry in table.entries:
        if not _is_line(entry.key):
            inner.wrong(entry.key, f"expected labels of one line, got {shown(entry.key)}")
    return {entry.key: inner.take(entry.key, _name) or "" for entry in table.entries}


def _keys(cls: type[Detector]) -> dict[str, tuple[Callable[[object], Any], bool]]:
    return {
        field.name: (field.metadata["parse"], field.default is attrs.NOTHING)
        for field in attrs.fields(cls)
        if "parse" in field.metadata
    }


def _is_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _name(value: object) -> str:
    if not isinstance(value, str) or not _is_line(value):
        raise ValueError("expected a text of one line")
    return value


def _mapping(value: object) -> Table:
    if not isinstance(value, Table) or not value.entries:
        raise ValueError("expected a mapping")
    return value


def _actions(value: object) -> tuple[Template, ...]:
    if not isinstance(value, list):
        raise ValueError("expected a list of texts")
    return tuple(template(each, quoted=True) for each in value)


def _one_of(words: Sequence[str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        meant = closest(value, words)
        hint = f" (did you mean {meant}?)" if meant else ""
        raise ValueError(f"expected one of {', '.join(words)}{hint}")

    return parse


def _cooldown(value: object) -> float:
    return number(value, 0, 86_400 * 366, "seconds, 0 or more")
