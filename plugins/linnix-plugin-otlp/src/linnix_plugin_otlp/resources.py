"""Whom the data is from: resource attributes of this machine, or of the one that is replayed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from linnix_plugin_otlp.__about__ import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["Origin", "Resources", "attributes_of", "machine"]

#: Other machines and runs of a replay that are told apart.
MAX_ORIGINS = 256

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


class Origin(NamedTuple):
    """What tells two sources of records apart."""

    host: str
    boot_id: str
    run_id: str


def attributes_of(origin: Origin, here: Mapping[str, str] | None) -> dict[str, str]:
    """Resource attributes of records of ``origin``; ``here`` is `machine`, if it is this one."""
    known = {
        "service.name": "linnix",
        "service.version": __version__,
        "service.instance.id": origin.run_id,
        "host.name": origin.host,
        "linnix.boot_id": origin.boot_id,
        **(here or {}),
    }
    return {name: value for name, value in known.items() if value}


def machine() -> dict[str, str]:
    """``host.*`` and ``os.*`` of this machine, as far as it tells."""
    release = _os_release()
    return {
        "host.id": _first_line(_MACHINE_IDS),
        "host.arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os.type": platform.system().lower(),
        "os.name": release.get("NAME", ""),
        "os.version": release.get("VERSION_ID", ""),
        "os.description": release.get("PRETTY_NAME", ""),
    }


#: Words of the conventions for what ``uname`` says.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm32", "i686": "x86"}


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _first_line(paths: tuple[Path, ...]) -> str:
    for path in paths:
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return ""


class Resources:
    """The SDK's resource of each origin, made once.

    What is configured wins over ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``, and
    these over what is found.
    """

    def __init__(self, host: str, configured: Mapping[str, str]) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource

        self._over = OTELResourceDetector().detect().merge(Resource(dict(configured)))
        self._host = host
        self._machine = machine()
        self._made: dict[Origin, Resource] = {}

    def of(self, origin: Origin) -> Resource:
        """The resource of records that come from there."""
        made = self._made.get(origin)
        if made is None:
            from opentelemetry.sdk.resources import Resource

            here = self._machine if origin.host == self._host else None
            made = Resource(dict(attributes_of(origin, here))).merge(self._over)
            if len(self._made) >= MAX_ORIGINS:
                self._made.clear()
            self._made[origin] = made
        return made
