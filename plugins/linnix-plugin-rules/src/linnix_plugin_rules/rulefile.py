"""The file of rules, read and checked: every mistake at once, each with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import yaml

from linnix_core import CLASSES, SEVERITIES, printable
from linnix_plugin_rules.detector import Detector, number
from linnix_plugin_rules.detectors import ABSENT_DETECTORS, DETECTORS
from linnix_plugin_rules.engine import Rule

__all__ = ["Mistake", "RuleFile", "RuleFileError", "parse_rules", "read_rules"]

#: The rules that are used when no file is named, inside this package.
DEFAULT_RULES = "default_rules.yaml"

MAX_BYTES = 2**20

COMMON_KEYS = ("name", "severity", "cooldown", "class", "detector")


@attrs.frozen(order=True)
class Mistake:
    """What is wrong in one line, counted from 1; line 0 is the file as a whole."""

    line: int
    reason: str


class RuleFileError(ValueError):
    """The rules cannot be used; ``mistakes`` holds all of them in the order of their lines."""

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(sorted(mistakes))
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
    """Rules that can run, and a sentence for each that cannot here."""

    source: str
    rules: tuple[Rule, ...]
    not_loaded: tuple[str, ...] = ()


def read_rules(path: Path | None = None) -> RuleFile:
    """The rules of a YAML or TOML file, or those that are shipped. Raises `RuleFileError`.

    The ending of the name tells which of the two is tried first.
    """
    if path is None:
        resource = files("linnix_plugin_rules") / DEFAULT_RULES
        return parse_rules(resource.read_text(encoding="utf-8"), DEFAULT_RULES)
    return parse_rules(_text(path), str(path), toml_first=path.suffix == ".toml")


def parse_rules(text: str, source: str, *, toml_first: bool = False) -> RuleFile:
    """The rules of a text. Raises `RuleFileError` with every mistake in it."""
    syntaxes = [_toml_tables, _yaml_tables] if toml_first else [_yaml_tables, _toml_tables]
    mistakes: list[Mistake] = []
    try:
        tables = syntaxes[0](text, mistakes)
    except _SyntaxError as error:
        try:
            tables = syntaxes[1](text, mistakes)
        except _SyntaxError:
            raise RuleFileError(source, [error.mistake]) from None
    rules, not_loaded = _check(tables, mistakes)
    if mistakes:
        raise RuleFileError(source, mistakes)
    return RuleFile(source, tuple(rules), tuple(not_loaded))


def _text(path: Path) -> str:
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


# --- syntax: text to tables -----------------------------------------------------------


@attrs.frozen
class _Entry:
    key: str
    value: object
    line: int


@attrs.frozen
class _Table:
    """The keys of one rule as they are written, which may be twice."""

    line: int
    entries: tuple[_Entry, ...]


#: Stands for a value that the syntax allows and that means nothing.
_UNREADABLE = object()


class _SyntaxError(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.mistake = Mistake(line, reason)


def _yaml_tables(text: str, mistakes: list[Mistake]) -> list[_Table]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise _SyntaxError(mark.line + 1 if mark else 0, f"not YAML: {reason}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _SyntaxError(line, f"not YAML: {error.reason}") from None
    except RecursionError:
        raise _SyntaxError(0, "nested too deeply") from None
    if isinstance(root, yaml.MappingNode):
        wrapper = _Table(_line(root), tuple(_entries(root, mistakes)))
        _only_rules(wrapper, mistakes)
        root = next((value for key, value in root.value if key.value == "rules"), None)
    if root is None or _scalar(root) is None:
        return []
    if not isinstance(root, yaml.SequenceNode):
        raise _SyntaxError(_line(root), "expected a list of rules")
    tables = []
    for node in root.value:
        if isinstance(node, yaml.MappingNode):
            tables.append(_Table(_line(node), tuple(_entries(node, mistakes))))
        else:
            mistakes.append(Mistake(_line(node), f"expected a rule, got {_shown(_scalar(node))}"))
    return tables


def _entries(node: yaml.MappingNode, mistakes: list[Mistake]) -> Iterator[_Entry]:
    for key, value in node.value:
        word = _scalar(key)
        if isinstance(word, str):
            yield _Entry(word, _scalar(value), _line(key))
        else:
            mistakes.append(Mistake(_line(key), f"expected a key, got {_shown(word)}"))


def _scalar(node: yaml.Node) -> object:
    """The value of a node, or an empty container in place of a full one."""
    if not isinstance(node, yaml.ScalarNode):
        return [] if isinstance(node, yaml.SequenceNode) else {}
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):  # an unknown tag, a date that does not exist
        return _UNREADABLE


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _toml_tables(text: str, mistakes: list[Mistake]) -> list[_Table]:
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        place = re.search(r"\(at line (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise _SyntaxError(line, f"not TOML: {str(error).partition(' (at ')[0]}") from None
    except RecursionError:
        raise _SyntaxError(0, "nested too deeply") from None
    lines = text.splitlines()
    _only_rules(
        _Table(1, tuple(_Entry(k, v, _find(lines, k, 1, len(lines))) for k, v in document.items())),
        mistakes,
    )
    rules = document.get("rules", [])
    if not isinstance(rules, list):
        mistakes.append(Mistake(_find(lines, "rules", 1, len(lines)), "expected [[rules]]"))
        return []
    # tomllib tells no lines, so they are looked for.
    heads = [n for n, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*rules\s*\]\]", line)]
    spans = list(zip(heads, [*(head - 1 for head in heads[1:]), len(lines)], strict=False))
    if len(spans) != len(rules):
        spans = [(_find(lines, "rules", 1, len(lines)), len(lines))] * len(rules)
    tables = []
    for rule, (head, end) in zip(rules, spans, strict=True):
        if isinstance(rule, dict):
            entries = (_Entry(k, v, _find(lines, k, head, end)) for k, v in rule.items())
            tables.append(_Table(head, tuple(entries)))
        else:
            mistakes.append(Mistake(head, f"expected a rule, got {_shown(rule)}"))
    return tables


def _find(lines: Sequence[str], key: str, first: int, last: int) -> int:
    pattern = re.compile(rf"\s*\[*\s*(rules\s*\.\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\].]")
    return next((n for n in range(first, last + 1) if pattern.match(lines[n - 1])), first)


# --- meaning: tables to rules ---------------------------------------------------------


def _only_rules(table: _Table, mistakes: list[Mistake]) -> None:
    mistakes.extend(
        Mistake(entry.line, f"only 'rules' can stand beside the list, got {_shown(entry.key)}")
        for entry in table.entries
        if entry.key != "rules"
    )
    _unique(table, mistakes)


def _check(tables: list[_Table], mistakes: list[Mistake]) -> tuple[list[Rule], list[str]]:
    rules: list[Rule] = []
    not_loaded: list[str] = []
    names: dict[str, int] = {}
    for table in tables:
        fields = _Fields(table, mistakes)
        name = fields.take("name", _name, required=True)
        if name in names:
            fields.wrong("name", f"the rule in line {names[name]} is called {name!r} as well")
        elif name is not None:
            names[name] = table.line
        word = fields.take("detector", _one_of(tuple(DETECTORS), *ABSENT_DETECTORS), required=True)
        common = {
            "severity": fields.take("severity", _one_of(SEVERITIES)),
            "cooldown_s": fields.take("cooldown", _cooldown),
            "class_": fields.take("class", _one_of(CLASSES)),
        }
        if word in ABSENT_DETECTORS:
            not_loaded.append(
                f"the rule {name!r} is not loaded: this version has no detector {word} "
                f"(it has {', '.join(DETECTORS)})"
            )
        elif word is None:
            fields.rest_of(dict.fromkeys(key for cls in DETECTORS.values() for key in _keys(cls)))
        else:
            detector = _build(DETECTORS[word], fields, word)
            if detector is not None and name is not None:
                given = {key: value for key, value in common.items() if value is not None}
                rules.append(Rule(name, detector, **{"class_": detector.class_} | given))
    return rules, not_loaded


def _build(cls: type[Detector], fields: _Fields, word: str) -> Detector | None:
    options = {
        key: fields.take(key, parse, required=True, of=word) for key, parse in _keys(cls).items()
    }
    fields.rest_of(options)
    return None if None in options.values() else cls(**options)


def _keys(cls: type[Detector]) -> dict[str, Callable[[object], Any]]:
    return {
        field.name: field.metadata["parse"]
        for field in attrs.fields(cls)
        if "parse" in field.metadata
    }


class _Fields:
    """The keys of one rule, taken one by one; what is wrong with them goes to ``mistakes``."""

    def __init__(self, table: _Table, mistakes: list[Mistake]) -> None:
        self._line = table.line
        self._entries = {entry.key: entry for entry in reversed(table.entries)}
        self._mistakes = mistakes
        _unique(table, mistakes)

    def take(
        self,
        key: str,
        parse: Callable[[object], Any],
        *,
        required: bool = False,
        of: str = "a rule",
    ) -> Any:
        """The parsed value of a key, or None where it is missing or wrong."""
        entry = self._entries.get(key)
        if entry is None:
            if required:
                self._mistakes.append(Mistake(self._line, f"{of} needs the key {key!r}"))
            return None
        try:
            return parse(entry.value)
        except ValueError as error:
            self.wrong(key, f"{key}: {error}, got {_shown(entry.value)}")
            return None

    def wrong(self, key: str, reason: str) -> None:
        """Note a mistake in the line of a key."""
        self._mistakes.append(Mistake(self._entries[key].line, reason))

    def rest_of(self, options: Collection[str]) -> None:
        """Note every key that is neither common nor one of ``options``."""
        known = [*COMMON_KEYS, *options]
        for entry in self._entries.values():
            if entry.key not in known:
                self._mistakes.append(Mistake(entry.line, _unknown_key(entry.key, known)))


def _unique(table: _Table, mistakes: list[Mistake]) -> None:
    seen: set[str] = set()
    for entry in table.entries:
        if entry.key in seen:
            mistakes.append(Mistake(entry.line, f"the key {entry.key!r} is there twice"))
        seen.add(entry.key)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("expected a text of one line")
    return value


def _one_of(words: Sequence[str], *silent: str) -> Callable[[object], str]:
    """Takes one of ``words``, or of the ``silent`` ones, which are not offered."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in (*words, *silent):
            return value
        meant = _closest(value, [*words, *silent])
        hint = f" (did you mean {meant}?)" if meant else ""
        raise ValueError(f"expected one of {', '.join(words)}{hint}")

    return parse


def _cooldown(value: object) -> float:
    return number(value, 0, 86_400 * 366, "seconds, 0 or more")


def _unknown_key(key: str, known: Sequence[str]) -> str:
    meant = _closest(key, known)
    hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
    return f"unknown key {_shown(key)} ({hint})"


def _closest(word: object, words: Sequence[str]) -> str | None:
    matches = difflib.get_close_matches(word.lower(), words, 1) if isinstance(word, str) else []
    return repr(matches[0]) if matches else None


def _shown(value: object) -> str:
    if value is _UNREADABLE:
        return "a value that cannot be read"
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    if isinstance(value, str):
        return f"'{printable(value, limit=60)}'"
    return printable(str(value), limit=60)
