"""From the schema of an answer to a grammar of llama.cpp (GBNF) that lets nothing else through."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["grammar_of"]

#: What a text may hold: printable ASCII that JSON needs no escape for, and no brace, so that
#: the first closing one ends a reply.
_CHARACTER = r"[ !#-\[\]-z|~]"


def grammar_of(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON objects that fit what `linnix_core.answer_schema` makes.

    The keys come in the order of the schema, one blank follows each colon and comma, as
    ``json.dumps`` writes them. Raises ``ValueError`` for a schema that needs more.

    >>> print(grammar_of({"type": "object", "properties": {
    ...     "process": {"type": "string", "enum": ["P1", "none"]},
    ...     "confidence": {"type": "integer", "minimum": 0, "maximum": 100}}}))
    root ::= "{" "\\"process\\": " process ", " "\\"confidence\\": " confidence "}"
    process ::= "\\"P1\\"" | "\\"none\\""
    confidence ::= "100" | [1-9] [0-9]{0,1} | "0"
    """
    properties = schema["properties"]
    pairs = [f"{_literal(json.dumps(key) + ': ')} {key}" for key in properties]
    between = f" {_literal(', ')} "
    rules = [f'root ::= "{{" {between.join(pairs)} "}}"']
    for key, wanted in properties.items():
        if not (key.isascii() and key.isalpha()):
            raise ValueError(f"{key!r} is no name of a rule")
        rules.append(f"{key} ::= {_rule(wanted)}")
    return "\n".join(rules)


def _rule(wanted: Mapping[str, Any]) -> str:
    match wanted:
        case {"type": "string", "enum": values}:
            return _one_of(values)
        case {"type": "string", "maxLength": int(most)}:
            return f'"\\"" {_CHARACTER}{{0,{most}}} "\\""'
        case {"type": "integer", "minimum": 0, "maximum": int(most)} if _is_power_of_ten(most):
            return f'"{most}" | [1-9] [0-9]{{0,{len(str(most)) - 2}}} | "0"'
        case {"type": "array", "items": {"enum": values}, "minItems": least, "maxItems": most}:
            return _some_of(values, least, most)
    raise ValueError(f"there is no grammar for {wanted!r:.80}")


def _some_of(values: Sequence[str], least: int, most: int) -> str:
    item = f"({_one_of(values)})"
    some = f'{item} (", " {item}){{{max(least - 1, 0)},{most - 1}}}'
    return f'"[" {some} "]"' if least else f'"[" ({some})? "]"'


def _one_of(values: Sequence[str]) -> str:
    if "}" in "".join(values):
        raise ValueError("a choice with a brace would look like the end of the reply")
    return " | ".join(_literal(json.dumps(value)) for value in values)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_power_of_ten(number: int) -> bool:
    return number >= 10 and str(number).strip("0") == "1"
