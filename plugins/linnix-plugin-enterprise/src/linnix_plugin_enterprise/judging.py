"""Whether a license holds, here and now, and if not, why and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_enterprise import machine
from linnix_plugin_enterprise.documents import DocumentError, read_document
from linnix_plugin_enterprise.keys import trusted_keys
from linnix_plugin_enterprise.licenses import License, Revocations, structured
from linnix_plugin_enterprise.store import LICENSE, REVOKED, latest_seen, remember, write_whole

__all__ = ["State", "Verdict", "install", "judge"]

State: TypeAlias = Literal[
    "valid", "grace",
    "missing", "unreadable", "truncated", "tampered", "untrusted",
    "revoked", "wrong_host", "clock", "future", "expired",
]  # fmt: skip

#: Seconds by which a clock may have been set back.
TOLERANCE_S = 24 * 3600.0

_ANEW = "ask whoever sold you the license for a new one, then: linnix license install FILE"


@attrs.frozen
class Verdict:
    """The state of a license, and for all but ``valid`` the reason and the next step."""

    state: State
    reason: str = ""
    hint: str | None = None
    license: License | None = None

    @property
    def holds(self) -> bool:
        """Whether what it names may run."""
        return self.state in ("valid", "grace")

    def allows(self, capability: str) -> bool:
        """Whether it holds and names the capability."""
        return self.holds and self.license is not None and capability in self.license.capabilities

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` and the API show it."""
        shown = None if self.license is None else attrs.asdict(self.license)
        return {
            "state": self.state,
            "holds": self.holds,
            "reason": self.reason,
            "hint": self.hint,
            "license": shown,
        }


def judge(folder: Path, now_s: float, *, file: Path | None = None, keep: bool = False) -> Verdict:
    """Judge the license in ``folder`` at a time in seconds since 1970.

    ``file`` is a license that is not installed. With ``keep`` the time is remembered, so
    that setting the clock back does not help.
    """
    try:
        license_ = _read_license(folder, file)
        # A list that proves nothing must not bring a revoked license back.
        revoked = _revoked(folder)
    except DocumentError as error:
        if error.code == "missing":
            return Verdict(
                "missing", "no license is installed", "linnix license install FILE installs one"
            )
        return Verdict(error.code, str(error), error.hint)  # type: ignore[arg-type]
    verdict = _judged(license_, revoked, now_s, latest_seen(folder, license_.id))
    if keep and verdict.state not in ("clock", "future"):
        # Later moments say nothing more, and a clock that once ran ahead does not spoil them.
        remember(folder, license_.id, min(now_s, license_.grace_ends_at.timestamp()))
    return verdict


def _read_license(folder: Path, file: Path | None) -> License:
    path = folder / LICENSE if file is None else file
    _, body = read_document(path, trusted_keys(folder), "license")
    found: License = structured(License, body, str(path))
    return found


def _revoked(folder: Path) -> tuple[str, ...]:
    path = folder / REVOKED
    if not path.exists():
        return ()
    _, body = read_document(path, trusted_keys(folder), "revocations")
    found: Revocations = structured(Revocations, body, str(path))
    return found.revoked


def _judged(license_: License, revoked: tuple[str, ...], now_s: float, latest_s: float) -> Verdict:
    if license_.id in revoked:
        return Verdict("revoked", f"license {_said(license_)} was revoked", _ANEW, license_)
    if license_.machines:
        here = machine.machine_id()
        if here not in license_.machines:
            return Verdict(
                "wrong_host",
                f"license {_said(license_)} is for other machines",
                f"ask for one that names this machine: {here}"
                if here
                else "this machine has no id: systemd-machine-id-setup makes one",
                license_,
            )
    if now_s < latest_s - TOLERANCE_S:
        return Verdict(
            "clock",
            f"the clock says {_day(now_s)}, and license {_said(license_)} was in use "
            f"on {_day(latest_s)} already",
            "set the clock; if it once ran ahead, ask for the license to be issued anew",
            license_,
        )
    # Within the tolerance too, nothing is gained by setting it back.
    time_s = max(now_s, latest_s)
    begins, ends, over = license_.begins_at, license_.ends_at, license_.grace_ends_at
    if time_s < begins.timestamp():
        return Verdict(
            "future",
            f"license {_said(license_)} begins on {begins:%Y-%m-%d}",
            "wait until then, and see whether the clock is right",
            license_,
        )
    if time_s >= over.timestamp():
        return Verdict(
            "expired", f"license {_said(license_)} ended on {ends:%Y-%m-%d}", _ANEW, license_
        )
    if time_s >= ends.timestamp():
        return Verdict(
            "grace",
            f"license {_said(license_)} ended on {ends:%Y-%m-%d}; what it names runs "
            f"until {over:%Y-%m-%d}",
            _ANEW,
            license_,
        )
    return Verdict("valid", license=license_)


def _said(license_: License) -> str:
    return f"{printable(license_.id, 60)} of {printable(license_.customer, 80)}"


def _day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


def install(folder: Path, file: Path, now_s: float) -> Verdict | Revocations:
    """Put a license, or a list of revoked ones, in its place, whole; what is there is replaced.

    Raises `LinnixError` for a license that does not hold, and for a list that is older than
    the one that is there.
    """
    kind, body = read_document(file, trusted_keys(folder))
    text = file.read_text(encoding="utf-8")
    if kind == "revocations":
        found: Revocations = structured(Revocations, body, str(file))
        path = folder / REVOKED
        if path.exists():
            _, old = read_document(path, trusted_keys(folder), "revocations")
            installed: Revocations = structured(Revocations, old, str(path))
            if found.issued_at < installed.issued_at:
                raise LinnixError(
                    f"{file} is of {found.issued}, and the list that is installed of "
                    f"{installed.issued}",
                    hint="a newer list holds what the older one does",
                )
        _place(path, text)
        return found
    verdict = judge(folder, now_s, file=file)
    if not verdict.holds:
        raise DocumentError(verdict.state, verdict.reason, hint=verdict.hint)
    _place(folder / LICENSE, text)
    return verdict


def _place(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise LinnixError(
            f"{path} cannot be written: {error.strerror}",
            hint="run it as the user whose agent it is, or with sudo",
        ) from None
