"""Names of models as Ollama takes them (ollama/ollama, types/model/name.go)."""

from __future__ import annotations

import re

from linnix_core import LinnixError, printable

__all__ = ["full_name", "is_same_model", "short_name"]

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(
    r"(?:(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349})/)?"
    r"(?P<namespace>[A-Za-z0-9_][A-Za-z0-9_-]{0,79})/)?"
    rf"(?P<model>{_PART})(?::(?P<tag>{_PART}))?"
)
_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"


def full_name(name: str) -> str:
    """The name with its tag, as Ollama lists it. Raises `LinnixError` for what it refuses.

    >>> full_name("oracle"), full_name("me/oracle:v2"), full_name("library/oracle")
    ('oracle:latest', 'me/oracle:v2', 'oracle:latest')
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise LinnixError(
            f"Ollama cannot call a model {printable(name, 80)!r}",
            hint="choose letters, digits, '.', '_' and '-', and maybe a tag after ':' (--as)",
        )
    host, namespace, model, tag = parts.group("host", "namespace", "model", "tag")
    if host in (None, _DEFAULT_HOST) and namespace == _DEFAULT_NAMESPACE:
        host = namespace = None
    where = "".join(f"{part}/" for part in (host, namespace) if part)
    return f"{where}{model}:{tag or _DEFAULT_TAG}"


def short_name(name: str) -> str:
    """The name without the tag that stands for itself.

    >>> short_name("oracle:latest"), short_name("oracle:v2")
    ('oracle', 'oracle:v2')
    """
    return name.removesuffix(f":{_DEFAULT_TAG}")


def is_same_model(one: str, other: str) -> bool:
    """Whether two names mean the same: the tag may be left out, case does not count.

    >>> is_same_model("Oracle", "oracle:latest"), is_same_model("oracle:v2", "oracle")
    (True, False)
    """
    try:
        return full_name(one).casefold() == full_name(other).casefold()
    except LinnixError:
        return False
