"""A supervisor as a unit of the user's systemd, so that it is there again after a restart."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from linnix_core import LinnixError, printable
from linnix_plugin_models.server_state import write_private

__all__ = ["disable", "enable", "environment_file", "unit_path", "unit_text"]

#: Seconds for systemctl to do what it is told; stopping waits for the server.
TIMEOUT_S = 40.0

#: Characters of a unit's name; systemd itself takes 255.
MAX_UNIT = 200


def unit_path(name: str) -> Path:
    """Where the unit of a server is. Raises `LinnixError` where there cannot be one."""
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    # A tilde, which is no character of a unit's name, is kept by quote().
    escaped = quote(name, safe="").replace("~", "%7E").replace("%", "\\x")
    unit = f"linnix-server-{escaped}.service"
    if len(unit) > MAX_UNIT:
        raise LinnixError(
            f"{printable(name, 80)!r} is too long for the name of a unit",
            hint="choose a shorter name with --as, or leave systemd out",
        )
    return user / "systemd" / "user" / unit


def unit_text(name: str, command: Sequence[str], secrets: Path) -> str:
    """The unit: the supervisor is started again unless it gave up, which is exit code 1."""
    return f"""[Unit]
Description=Linnix: the model server {_unspecific(printable(name, 200))}

[Service]
Type=exec
ExecStart={" ".join(map(_quoted, [*command, "--foreground"]))}
EnvironmentFile={_unspecific(str(secrets))}
Restart=on-failure
RestartPreventExitStatus=1
KillMode=mixed
TimeoutStopSec=20

[Install]
WantedBy=default.target
"""


def environment_file(variables: Mapping[str, str]) -> str:
    """Variables as EnvironmentFile= of systemd.exec(5) reads them."""
    lines = []
    for key, value in variables.items():
        if re.search(r"[\x00-\x1f]", value):
            raise LinnixError(f"{key} holds characters that systemd cannot hand on")
        escaped = re.sub(r'(["\\$`])', r"\\\1", value)
        lines.append(f'{key}="{escaped}"\n')
    return "".join(lines)


def enable(name: str, command: Sequence[str], secrets: Path) -> None:
    """Write the unit and start it. Raises `LinnixError`."""
    path = unit_path(name)
    text = unit_text(name, command, secrets)
    if path.exists() and not _is_ours(path, command):
        raise LinnixError(
            f"{path} is the unit of another server", hint="choose another name with --as"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, text)
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", path.name)
    except LinnixError:
        # It may have been enabled, and started, before that failed.
        with contextlib.suppress(LinnixError):
            _systemctl("disable", "--now", path.name)
        path.unlink(missing_ok=True)
        with contextlib.suppress(LinnixError):
            _systemctl("daemon-reload")
        raise


def disable(name: str, command: Sequence[str]) -> None:
    """Stop the unit and remove it; where it is gone, nothing is done."""
    path = unit_path(name)
    if path.exists() and _is_ours(path, command):
        _systemctl("disable", "--now", path.name)
        path.unlink(missing_ok=True)
        _systemctl("daemon-reload")


def _is_ours(path: Path, command: Sequence[str]) -> bool:
    return _quoted(command[-1]) in path.read_text(encoding="utf-8", errors="replace")


def _systemctl(*arguments: str) -> None:
    hint = "leave systemd out: the server runs then until this machine ends"
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            ["systemctl", "--user", *arguments],  # noqa: S607 - the system's own
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise LinnixError("systemctl is not here", hint=hint) from None
    except subprocess.TimeoutExpired:
        raise LinnixError(f"systemctl --user {arguments[0]} takes too long", hint=hint) from None
    if done.returncode:
        said = printable(" ".join(done.stderr.split()), 300)
        raise LinnixError(f"systemctl --user {arguments[0]} failed: {said}", hint=hint)


def _quoted(text: str) -> str:
    """One argument of ExecStart= (systemd.service(5), "Command lines")."""
    escaped = re.sub(r'(["\\])', r"\\\1", text).replace("$", "$$")
    return f'"{_unspecific(escaped)}"'


def _unspecific(text: str) -> str:
    return text.replace("%", "%%")
