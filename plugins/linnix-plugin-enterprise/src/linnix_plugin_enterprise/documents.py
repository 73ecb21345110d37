"""Signed documents: a body, whose key signed it, and the signature over exactly those bytes.

    {"linnix": "license/1", "key": "<id of the key>", "body": "<base64>", "signature": "<base64>"}

The kind is part of what is signed, so that no document can pass for one of another kind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from linnix_core import LinnixError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["DocumentError", "Kind", "key_id", "read_document", "sign_document"]

Kind: TypeAlias = Literal["license", "revocations"]

#: Larger files hold no document of ours.
MAX_BYTES = 2**20


class DocumentError(LinnixError):
    """A document that proves nothing: ``code`` is the state that it leaves a license in."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def key_id(key: Ed25519PublicKey) -> str:
    """What a key is called in documents: the start of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign_document(kind: Kind, body: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """The text of a document with this body."""
    raw = json.dumps(body, ensure_ascii=False, sort_keys=True).encode()
    document = {
        "linnix": f"{kind}/1",
        "key": key_id(key.public_key()),
        "body": base64.b64encode(raw).decode(),
        "signature": base64.b64encode(key.sign(_signed(kind, raw))).decode(),
    }
    return json.dumps(document, indent=1) + "\n"


def read_document(
    path: Path, keys: Mapping[str, Ed25519PublicKey], kind: Kind | None = None
) -> tuple[Kind, dict[str, Any]]:
    """The kind and the body of a document that one of ``keys`` signed.

    Raises `DocumentError` with the code ``missing``, ``unreadable``, ``truncated``,
    ``untrusted`` or ``tampered``.
    """
    found = _envelope(path)
    named = found["linnix"]
    known: Mapping[str, Kind] = {"license/1": "license", "revocations/1": "revocations"}
    if named not in known or (kind is not None and known[named] != kind):
        raise DocumentError("unreadable", f"{path} is not a {kind or 'license'} of this version")
    try:
        raw, signature = (
            base64.b64decode(found[part], validate=True) for part in ("body", "signature")
        )
    except (binascii.Error, ValueError):
        raise _tampered(path) from None
    key = keys.get(found["key"])
    if key is None:
        raise DocumentError(
            "untrusted",
            f"{path} is signed with a key that is not trusted here",
            hint="get the file from whoever sold you the license"
            if keys
            else "no key is trusted: install a release, or put a public key into the folder keys/",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, _signed(known[named], raw))
    except InvalidSignature:
        raise _tampered(path) from None
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise DocumentError("unreadable", f"{path} has no readable body")
    return known[named], body


def _signed(kind: str, raw: bytes) -> bytes:
    return b"linnix-" + kind.encode() + b"/1\n" + raw


def _tampered(path: Path) -> DocumentError:
    return DocumentError(
        "tampered",
        f"{path} was changed after it was signed",
        hint="install the file as it was sent to you",
    )


def _envelope(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DocumentError("missing", f"{path} does not exist") from None
    except OSError as error:
        raise DocumentError(
            "unreadable", f"{path} cannot be read: {error.strerror}", hint="look at its permissions"
        ) from None
    try:
        found = json.loads(data.decode()) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        if not data.strip() or data.lstrip().startswith(b"{"):
            raise DocumentError(
                "truncated",
                f"{path} is incomplete",
                hint="install the file again, whole, as it was sent to you",
            ) from None
        found = None
    parts = {"linnix", "key", "body", "signature"}
    if (
        not isinstance(found, dict)
        or set(found) != parts
        or not all(isinstance(found[part], str) for part in parts)
    ):
        raise DocumentError("unreadable", f"{path} is no license file")
    return found
