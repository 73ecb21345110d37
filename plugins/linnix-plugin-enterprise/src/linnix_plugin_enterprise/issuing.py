"""For whoever issues licenses, and for tests: make keys, sign licenses and revocations."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import attrs

from linnix_core import LinnixError
from linnix_plugin_enterprise.documents import sign_document
from linnix_plugin_enterprise.licenses import License, Revocations

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "development_license",
    "new_key",
    "new_license",
    "signed_license",
    "signed_revocations",
    "write_new",
]


def new_key(folder: Path, name: str = "linnix") -> Ed25519PrivateKey:
    """Make a key pair: ``name.private.pem`` (0600) and ``name.pem``, which may be shown."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_new(folder / f"{name}.private.pem", private.decode())
    write_new(folder / f"{name}.pem", public.decode())
    return key


def new_license(
    customer: str,
    capabilities: tuple[str, ...],
    *,
    begins: datetime | None = None,
    days: int = 365,
    **parts: Any,
) -> License:
    """A license that begins now, or then, with a new id."""
    now = datetime.now(UTC)
    begins = begins or now
    moments = {"issued": now, "begins": begins, "ends": begins + timedelta(days=days)}
    return License(
        customer=customer,
        capabilities=capabilities,
        **{
            "id": uuid4().hex[:12],
            "hosts": 1,
            **{name: moment.isoformat(timespec="seconds") for name, moment in moments.items()},
            **parts,
        },
    )


def signed_license(license_: License, key: Ed25519PrivateKey) -> str:
    """The text of a license file."""
    return sign_document("license", attrs.asdict(license_), key)


def signed_revocations(
    revoked: tuple[str, ...], key: Ed25519PrivateKey, issued: datetime | None = None
) -> str:
    """The text of a list of revoked licenses."""
    moment = (issued or datetime.now(UTC)).isoformat(timespec="seconds")
    body = Revocations(issued=moment, revoked=tuple(revoked))
    return sign_document("revocations", attrs.asdict(body), key)


def development_license(folder: Path, *capabilities: str) -> None:
    """Fill a folder for ``LINNIX_LICENSE_DIR``: a key of its own and a license until tomorrow.

    For the tests of enterprise plugins in a checkout: a release trusts its own keys only. The
    license began long ago, for tests that set the clock; the private key is thrown away.
    """
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    key = new_key(folder / "keys")
    (folder / "keys" / "linnix.private.pem").unlink()
    began = datetime(2000, 1, 1, tzinfo=UTC)
    days = (datetime.now(UTC) - began).days + 2
    license_ = new_license("development", capabilities, begins=began, days=days, grace_days=0)
    write_new(folder / "license.json", signed_license(license_, key))


def write_new(path: Path, text: str) -> None:
    """A private file that was not there before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise LinnixError(f"{path} exists", hint="name another, or remove it") from None
    except OSError as error:
        raise LinnixError(f"{path} cannot be written: {error.strerror}") from None
