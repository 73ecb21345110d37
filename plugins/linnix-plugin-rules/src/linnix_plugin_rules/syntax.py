"""Text to tables: YAML or TOML, with the line of every key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import yaml

from linnix_core import printable

__all__ = [
    "Entry",
    "Fields",
    "Mistake",
    "NotThisSyntax",
    "Table",
    "Values",
    "closest",
    "shown",
    "tables_of",
]

#: What a file may be made of: levels of nesting, and values, which aliases can multiply.
MAX_DEPTH, MAX_VALUES = 12, 50_000


@attrs.frozen(order=True)
class Mistake:
    """What is wrong in one line, counted from 1; line 0 is the file as a whole."""

    line: int
    reason: str


@attrs.frozen
class Entry:
    """A key with its value: a `Table`, a list of values, or what the syntax calls a scalar."""

    key: str
    value: Any
    line: int


@attrs.frozen
class Table:
    """Keys as they are written, which may be twice."""

    line: int
    entries: tuple[Entry, ...]

    def get(self, key: str) -> Entry | None:
        """The first entry of that key."""
        return next((entry for entry in self.entries if entry.key == key), None)


class Values(list[Any]):
    """A list with the line of each value, where that is known."""

    lines: Sequence[int] = ()


#: How YAML marks the key ``<<``, which merges other mappings in.
_MERGE = "tag:yaml.org,2002:merge"

#: Stands for a value that the syntax allows and that means nothing.
_UNREADABLE = object()


class NotThisSyntax(Exception):
    """The text is something else, or broken."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.mistake = Mistake(line, reason)


def tables_of(text: str, mistakes: list[Mistake], *, toml_first: bool) -> Table:
    """The whole file as a table; a list on its own is one of rules. Raises `NotThisSyntax`."""
    syntaxes = [_toml, _yaml] if toml_first else [_yaml, _toml]
    try:
        return syntaxes[0](text, mistakes)
    except NotThisSyntax as error:
        try:
            return syntaxes[1](text, mistakes)
        except NotThisSyntax:
            raise error from None


# --- YAML -----------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: ``1e3`` is one, ``010`` and ``1:30`` are none.

    To YAML 1.1, which is otherwise meant, these are a text, 8 and 90.
    """


_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$",
    "tag:yaml.org,2002:float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))


def _yaml(text: str, mistakes: list[Mistake]) -> Table:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise NotThisSyntax(mark.line + 1 if mark else 0, f"not YAML: {reason}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotThisSyntax(line, f"not YAML: {error.reason}") from None
    except RecursionError:
        raise NotThisSyntax(0, "nested too deeply") from None
    if root is None:
        return Table(1, ())
    value = _YamlValues(mistakes).value(root)
    if isinstance(value, Table):
        return value
    if value is None:
        return Table(1, ())
    if not isinstance(value, list):
        raise NotThisSyntax(_line(root), "expected a list of rules")
    return Table(_line(root), (Entry("rules", value, _line(root)),))


class _YamlValues:
    """Makes values of nodes, as many as there may be."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self._mistakes = mistakes
        self._left = MAX_VALUES

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            reason = f"more than {MAX_VALUES} values, those that aliases repeat counted each time"
            raise NotThisSyntax(_line(node), reason)
        if depth > MAX_DEPTH:
            raise NotThisSyntax(_line(node), "nested too deeply")
        if isinstance(node, yaml.MappingNode):
            return Table(_line(node), tuple(self._entries(node, depth)))
        if isinstance(node, yaml.SequenceNode):
            values = Values(self.value(each, depth + 1) for each in node.value)
            values.lines = [_line(each) for each in node.value]
            return values
        try:
            return _Loader("").construct_object(node)
        except (yaml.YAMLError, ValueError):  # an unknown tag, a date that does not exist
            return _UNREADABLE

    def _entries(self, node: yaml.MappingNode, depth: int) -> list[Entry]:
        entries: list[Entry] = []
        merged: list[Entry] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                merged += self._merged(key, self.value(value, depth + 1))
                continue
            word = self.value(key, depth + 1)
            if isinstance(word, str):
                entries.append(Entry(word, self.value(value, depth + 1), _line(key)))
            else:
                self._mistakes.append(Mistake(_line(key), f"expected a key, got {shown(word)}"))
        known = {entry.key for entry in entries}
        for entry in merged:
            if entry.key not in known:
                known.add(entry.key)
                entries.append(entry)
        return entries

    def _merged(self, key: yaml.Node, value: Any) -> Iterator[Entry]:
        """What ``<<`` brings along: of several mappings the first one that has a key counts."""
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Table):
                yield from each.entries
            else:
                reason = f"<<: expected a mapping or a list of them, got {shown(each)}"
                self._mistakes.append(Mistake(_line(key), reason))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


# --- TOML -----------------------------------------------------------------------------


def _toml(text: str, mistakes: list[Mistake]) -> Table:
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        place = re.search(r"\(at line (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise NotThisSyntax(line, f"not TOML: {str(error).partition(' (at ')[0]}") from None
    except RecursionError:
        raise NotThisSyntax(0, "nested too deeply") from None
    lines = text.splitlines()
    entries = []
    for key, value in document.items():
        line = _find(lines, key, 1, len(lines))
        if isinstance(value, list):
            entries.append(Entry(key, _toml_tables(key, value, lines), line))
        else:
            entries.append(Entry(key, _toml_value(value, lines, line, len(lines)), line))
    return Table(1, tuple(entries))


def _toml_tables(name: str, values: list[Any], lines: Sequence[str]) -> list[Any]:
    # tomllib tells no lines, so they are looked for.
    head = re.compile(rf"\s*\[\[\s*{re.escape(name)}\s*\]\]")
    heads = [n for n, line in enumerate(lines, 1) if head.match(line)]
    spans = list(zip(heads, [*(head - 1 for head in heads[1:]), len(lines)], strict=False))
    if len(spans) != len(values):
        spans = [(_find(lines, name, 1, len(lines)), len(lines))] * len(values)
    return [_toml_value(value, lines, *span) for value, span in zip(values, spans, strict=True)]


def _toml_value(value: Any, lines: Sequence[str], first: int, last: int) -> Any:
    if isinstance(value, list):
        return [_toml_value(each, lines, first, last) for each in value]
    if not isinstance(value, dict):
        return value
    entries = []
    for key, each in value.items():
        line = _find(lines, key, first, last)
        entries.append(Entry(key, _toml_value(each, lines, line, last), line))
    return Table(first, tuple(entries))


def _find(lines: Sequence[str], key: str, first: int, last: int) -> int:
    pattern = re.compile(
        rf"(\s*\[*\s*([\w-]+\s*\.\s*)?|.*[{{,]\s*)[\"']?{re.escape(key)}[\"']?\s*[=\].]"
    )
    return next((n for n in range(first, last + 1) if pattern.match(lines[n - 1])), first)


# --- the keys of a table --------------------------------------------------------------


class Fields:
    """The keys of one rule, taken one by one; what is wrong with them goes to ``mistakes``."""

    def __init__(self, table: Table, mistakes: list[Mistake]) -> None:
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
            self.wrong(key, f"{key}: {error}, got {shown(entry.value)}")
            return None

    def wrong(self, key: str, reason: str) -> None:
        """Note a mistake in the line of a key."""
        self._mistakes.append(Mistake(self._entries[key].line, reason))

    def line(self, key: str) -> int:
        """Where a key stands, or the whole if it is missing."""
        return self._entries[key].line if key in self._entries else self._line

    def only(self, known: Sequence[str]) -> None:
        """Note every key that is not known."""
        for entry in self._entries.values():
            if entry.key not in known:
                self._mistakes.append(Mistake(entry.line, _unknown_key(entry.key, known)))


def _unique(table: Table, mistakes: list[Mistake]) -> None:
    seen: set[str] = set()
    for entry in table.entries:
        if entry.key in seen:
            mistakes.append(Mistake(entry.line, f"the key {entry.key!r} is there twice"))
        seen.add(entry.key)


def closest(word: object, words: Sequence[str]) -> str | None:
    """The word that may have been meant, quoted."""
    matches = difflib.get_close_matches(word.lower(), words, 1) if isinstance(word, str) else []
    return repr(matches[0]) if matches else None


def _unknown_key(key: str, known: Sequence[str]) -> str:
    meant = closest(key, known)
    hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
    return f"unknown key {shown(key)} ({hint})"


def shown(value: object) -> str:
    """A value in a sentence, safe and short."""
    if value is _UNREADABLE:
        return "a value that cannot be read"
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, Table):
        return "a mapping" if value.entries else "an empty mapping"
    if isinstance(value, str):
        return f"'{printable(value, limit=60)}'"
    return printable(str(value), limit=60)
