"""Who may do what: tokens, known by their hashes only."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import attrs

__all__ = ["ANYONE", "SCOPES", "Scope", "Token", "allowed_by", "fingerprint", "new_token"]

Scope: TypeAlias = Literal["read", "act", "admin"]

#: From the least to the most; each includes those before it.
SCOPES: tuple[Scope, ...] = ("read", "act", "admin")

#: What whoever comes over the loopback interface may do where there are no tokens.
ANYONE: frozenset[str] = frozenset({"read", "act"})


def fingerprint(token: str) -> str:
    """SHA-256 in hexadecimal. Enough for tokens of `new_token`, which nobody can guess."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A token of 256 random bits."""
    return "lnx_" + secrets.token_urlsafe(32)


def _check_sha256(_token: Any, _attribute: Any, value: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(
            "sha256 must be the 64 hexadecimal digits that `linnix http token new` prints"
        )


@attrs.frozen
class Token:
    """One entry of ``tokens``: a hash, and what its owner may do."""

    sha256: str = attrs.field(
        validator=_check_sha256, metadata={"help": "hash of the token, in hexadecimal"}
    )
    scope: Scope = attrs.field(
        default="read", metadata={"help": "read, act (feedback, explanations) or admin"}
    )
    name: str = attrs.field(default="", metadata={"help": "whose it is, for people"})


def allowed_by(tokens: Iterable[Token], given: str) -> frozenset[str]:
    """The scopes of whoever shows that token; none for a wrong one.

    Every hash is compared, in constant time each, whatever was found before.
    """
    hashed = fingerprint(given)
    scopes: frozenset[str] = frozenset()
    for token in tokens:
        if hmac.compare_digest(hashed, token.sha256):
            scopes |= frozenset(SCOPES[: SCOPES.index(token.scope) + 1])
    return scopes
