"""The public keys that are trusted: those of the release, or in a checkout those at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from linnix_plugin_enterprise.documents import DocumentError, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["BUILT_IN", "private_key", "public_key", "trusted_keys"]

#: A release puts its public keys here before the wheel is built.
BUILT_IN = Path(__file__).parent / "trusted"


def trusted_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Keys by their id: those that are built in and no others, or those in ``folder/keys``."""
    files = sorted(BUILT_IN.glob("*.pem")) or sorted((folder / "keys").glob("*.pem"))
    return {key_id(key): key for key in map(public_key, files)}


def public_key(file: Path) -> Ed25519PublicKey:
    """The key in a PEM file, as ``openssl pkey -pubout`` writes it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DocumentError("untrusted", f"{file} holds no public Ed25519 key")
    return key


def private_key(file: Path) -> Ed25519PrivateKey:
    """The key that documents are signed with, from a PEM file without a password."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise DocumentError("unreadable", f"{file} holds no private Ed25519 key without password")
    return key
