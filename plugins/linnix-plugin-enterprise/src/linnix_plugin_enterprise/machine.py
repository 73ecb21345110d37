"""Which machine this is, for licenses that are bound to machines."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

__all__ = ["machine_id"]

#: systemd's, then D-Bus's; see machine-id(5).
MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def machine_id() -> str | None:
    """32 hexadecimal digits that stand for this machine here only; None where it has no id.

    The machine's own id is confidential (machine-id(5)): what leaves the machine is a keyed
    hash of it, as ``sd_id128_get_machine_app_specific`` makes one.
    """
    for file in MACHINE_ID_FILES:
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if len(text) == 32:
            return hmac.new(text.encode(), b"linnix-license", hashlib.sha256).hexdigest()[:32]
    return None
