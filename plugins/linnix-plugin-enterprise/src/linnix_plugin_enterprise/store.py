"""The folder of the license: the license, the list of revoked ones, and the latest time seen."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from linnix_core import Context

__all__ = [
    "CLOCK",
    "LICENSE",
    "REVOKED",
    "folder_below",
    "folder_of",
    "latest_seen",
    "remember",
    "write_whole",
]

LICENSE = "license.json"
REVOKED = "revoked.json"
CLOCK = "clock.json"

#: Licenses whose latest time is kept.
_MOST = 64


def folder_below(data_dir: Path) -> Path:
    """The folder, from the data folder of the agent; ``LINNIX_LICENSE_DIR`` names another."""
    named = os.environ.get("LINNIX_LICENSE_DIR")
    return Path(named) if named else data_dir / "handlers.enterprise"


def folder_of(context: Context) -> Path:
    """The same folder, from the context of any component."""
    return folder_below(context.data_dir.parent)


def latest_seen(folder: Path, license_id: str) -> float:
    """The latest time, in seconds since 1970, at which this license was looked at; or 0."""
    return _seen(folder).get(license_id, 0.0)


def remember(folder: Path, license_id: str, now_s: float) -> None:
    """Keep the time, if it is a minute later than the latest; where it cannot be kept, go on."""
    seen = _seen(folder)
    if now_s < seen.get(license_id, 0.0) + 60:
        return
    seen.pop(license_id, None)
    seen[license_id] = now_s
    with contextlib.suppress(OSError):
        write_whole(folder / CLOCK, json.dumps(dict(list(seen.items())[-_MOST:])))


def _seen(folder: Path) -> dict[str, float]:
    # A file that is gone or something else is as good as none.
    try:
        found = json.loads((folder / CLOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and 0 <= value < 1e11
    }


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that whoever reads it finds the old one or the new one, mode 0600."""
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if os.geteuid() == 0:
                # An agent that is no longer root has to read what root installs.
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
