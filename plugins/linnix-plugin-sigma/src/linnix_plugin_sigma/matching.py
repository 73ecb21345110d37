"""A rule's condition as a function that tells whether an exec meets it.

Texts are compared in small letters, as Sigma wants it, which are made once for each exec
and not for each rule. Regular expressions run on RE2, whose time grows with the length of
the text only, so that no argument can stall them; it knows no look-around and no
back-references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import re2  # type: ignore[import-untyped]
from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.policy import SigmaPolicy
from sigma.policy.regex_engine import RE2RegexEngine, RegexPattern
from sigma.types import (
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
)

from linnix_plugin_sigma.execution import FIELDS, Execution

__all__ = ["POLICY", "Predicate", "Unsupported", "compile_condition", "image_names"]

Predicate: TypeAlias = Callable[[Execution], bool]

#: What one regular expression may use for its automaton, in bytes (RE2's default is 8 MiB). A
#: text that would need more is searched more slowly, and still in linear time.
_REGEX_BYTES = 2**20

#: Cost of a test relative to one comparison: cheap ones are asked first.
_REGEX_COST = 50

_ANYTHING = SpecialChars.WILDCARD_MULTI

_REFUSED: dict[type, str] = {
    SigmaCIDRExpression: "the modifier cidr is not supported: no field here holds an address",
    SigmaCompareExpression: "the modifiers lt, lte, gt and gte are not supported",
    SigmaFieldReference: "the modifier fieldref is not supported",
    SigmaTimestampPart: "modifiers for parts of a time are not supported",
}


class Unsupported(Exception):
    """A rule cannot be used here; the message is the reason, as a clause."""


class _Engine(RE2RegexEngine):
    """RE2 with bounded memory, which does not write its errors to standard error."""

    def compile(self, pattern: str, flags: int = 0) -> RegexPattern:
        letters = "".join(
            letter
            for letter, flag in (("i", re.IGNORECASE), ("m", re.MULTILINE), ("s", re.DOTALL))
            if flags & flag
        )
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _REGEX_BYTES
        options.never_capture = True
        try:
            compiled: RegexPattern = re2.compile(
                f"(?{letters}){pattern}" if letters else pattern, options
            )
        except re2.error as error:
            said = error.args[0]
            raise re2.error(said.decode() if isinstance(said, bytes) else said) from None
        return compiled


_ENGINE = _Engine()

#: What pySigma checks regular expressions with.
POLICY = SigmaPolicy(regex_engine=_ENGINE)


class _Test(NamedTuple):
    cost: int
    holds: Predicate


def compile_condition(condition: Any) -> Predicate:
    """A function for a condition as pySigma parses it. Raises `Unsupported`."""
    return _compile(condition).holds


def _compile(node: Any) -> _Test:
    match node:
        case ConditionAND():
            return _all([_compile(argument) for argument in node.args])
        case ConditionOR():
            return _any(node.args)
        case ConditionNOT():
            cost, holds = _compile(node.args[0])
            return _Test(cost, lambda execution: not holds(execution))
        case ConditionFieldEqualsValueExpression(value=SigmaExpansion()):
            return _any(_expanded(node))
        case ConditionFieldEqualsValueExpression():
            literal = _literal(node)
            return _value(_place(node.field), node.value) if literal is None else _same([literal])
        case ConditionValueExpression():
            # A keyword may stand anywhere in an event.
            value = _anywhere(node.value)
            return _any([ConditionFieldEqualsValueExpression(field, value) for field in FIELDS])
        case _:
            raise Unsupported(f"a condition of the type {type(node).__name__} is not supported")


def _all(tests: Iterable[_Test]) -> _Test:
    ordered = sorted(tests, key=lambda test: test.cost)
    predicates = [test.holds for test in ordered]

    def holds(execution: Execution) -> bool:
        for predicate in predicates:  # noqa: SIM110 - all() with a generator costs twice as much
            if not predicate(execution):
                return False
        return True

    return _Test(sum(test.cost for test in ordered), holds)


def _any(nodes: Iterable[Any]) -> _Test:
    alike: dict[tuple[int, _Shape, bool], list[_Literal]] = {}
    tests = []
    for node in nodes:
        if (literal := _literal(node)) is None:
            tests.append(_compile(node))
        else:
            alike.setdefault(literal[:3], []).append(literal)
    tests += map(_same, alike.values())
    if len(tests) == 1:
        return tests[0]
    ordered = sorted(tests, key=lambda test: test.cost)
    predicates = [test.holds for test in ordered]

    def holds(execution: Execution) -> bool:
        for predicate in predicates:  # noqa: SIM110
            if predicate(execution):
                return True
        return False

    return _Test(sum(test.cost for test in ordered), holds)


# --- texts that stand somewhere as they are -----------------------------------------------

_Shape: TypeAlias = Literal["equals", "starts", "ends", "contains"]


class _Literal(NamedTuple):
    """A text that a field has to be, to begin or end with, or to contain."""

    place: int
    shape: _Shape
    cased: bool
    text: str


def _literal(node: Any) -> _Literal | None:
    """What a comparison with a field comes to, if it is as simple as that."""
    if not isinstance(node, ConditionFieldEqualsValueExpression):
        return None
    value = node.value
    if isinstance(value, SigmaNumber | SigmaBool) and type(value) not in _REFUSED:
        return _Literal(_place(node.field), "equals", False, str(value).lower())
    if not isinstance(value, SigmaString):
        return None
    cased = isinstance(value, SigmaCasedString)
    shape: _Shape
    match value.s:
        case []:
            shape, text = "equals", ""
        case [str(text)]:
            shape = "equals"
        case [special, str(text)] if special is _ANYTHING:
            shape = "ends"
        case [str(text), special] if special is _ANYTHING:
            shape = "starts"
        case [first, str(text), last] if first is _ANYTHING and last is _ANYTHING:
            shape = "contains"
        case _:
            return None
    return _Literal(_place(node.field), shape, cased, text if cased else text.lower())


def _same(literals: Sequence[_Literal]) -> _Test:
    """A test for any of several texts that are to be found in one place in one way."""
    place, shape, cased, _ = literals[0]
    texts = tuple(dict.fromkeys(literal.text for literal in literals))
    which = 0 if cased else 1

    def ends(execution: Execution) -> bool:
        text = execution[which][place]
        return text is not None and text.endswith(texts)

    def starts(execution: Execution) -> bool:
        text = execution[which][place]
        return text is not None and text.startswith(texts)

    def contains(execution: Execution) -> bool:
        text = execution[which][place]
        if text is None:
            return False
        for part in texts:  # noqa: SIM110
            if part in text:
                return True
        return False

    every = frozenset(texts)

    def equals(execution: Execution) -> bool:
        return execution[which][place] in every

    if shape == "contains":
        return _Test(2 * len(texts), contains)
    return _Test(1, {"ends": ends, "starts": starts, "equals": equals}[shape])


# --- everything else ----------------------------------------------------------------------


def _place(field: str) -> int:
    if field not in FIELDS:
        raise Unsupported(f"the field {field} is not known here; those are {', '.join(FIELDS)}")
    return FIELDS.index(field)


def _expanded(node: ConditionFieldEqualsValueExpression) -> list[Any]:
    values: Any = node.value
    return [ConditionFieldEqualsValueExpression(node.field, value) for value in values.values]


def _anywhere(value: Any) -> Any:
    """A keyword as what has to be contained in a field."""
    if isinstance(value, SigmaExpansion):
        return SigmaExpansion([_anywhere(item) for item in value.values])
    if isinstance(value, SigmaNumber) and type(value) not in _REFUSED:
        value = SigmaString(str(value))
    if isinstance(value, SigmaString):
        value = value if value.startswith(_ANYTHING) else _ANYTHING + value
        value = value if value.endswith(_ANYTHING) else value + _ANYTHING
    elif not isinstance(value, SigmaRegularExpression):
        raise Unsupported("a keyword must be a text, a number or a regular expression")
    return value


def _value(place: int, value: Any) -> _Test:
    match value:
        case SigmaNull():
            return _Test(1, lambda execution: execution.exact[place] is None)
        case SigmaExists(exists=exists):
            return _Test(1, lambda execution: (execution.exact[place] is not None) is exists)
        case SigmaRegularExpression():
            flags = 0
            for flag in value.flags:
                flags |= value.sigma_to_python_flags[flag]
            return _search(place, 0, _ENGINE.compile(str(value.regexp), flags))
        case SigmaString():
            cased = isinstance(value, SigmaCasedString)
            pattern = f"(?s)\\A{''.join(_pieces(value, cased))}\\z"
            return _search(place, 0 if cased else 1, _ENGINE.compile(pattern))
        case _:
            kind = type(value)
            raise Unsupported(_REFUSED.get(kind, f"a value of the type {kind.__name__}"))


def _pieces(value: SigmaString, cased: bool) -> Iterable[str]:
    for part in value.s:
        if isinstance(part, str):
            yield str(re2.escape(part if cased else part.lower()))
        elif isinstance(part, SpecialChars):
            yield ".*" if part is _ANYTHING else "."
        else:
            raise Unsupported(f"%{part.name}% is a placeholder, which nothing here fills in")


def _search(place: int, which: int, pattern: RegexPattern) -> _Test:
    search = pattern.search

    def holds(execution: Execution) -> bool:
        text = execution[which][place]
        return text is not None and search(text) is not None

    return _Test(_REGEX_COST, holds)


# --- what is known before -----------------------------------------------------------------


def image_names(node: Any) -> frozenset[str] | None:
    """Names of executables, one of which an exec must have to meet the condition.

    In small letters and without folders. None where it may have any.
    """
    match node:
        case ConditionAND():
            known = [names for names in map(image_names, node.args) if names is not None]
            return min(known, key=len, default=None)
        case ConditionOR():
            every = [image_names(argument) for argument in node.args]
            if any(names is None for names in every):
                return None
            return frozenset(name for names in every for name in names or ())
        case ConditionFieldEqualsValueExpression(field="Image"):
            literal = _literal(node)
            if literal is not None and literal.shape in ("ends", "equals"):
                _, slash, name = literal.text.rpartition("/")
                if slash and name:
                    return frozenset({name.lower()})
    return None
