"""Where a model is: a location of the registry, the path there, and how to get at it from here."""

from __future__ import annotations

from pathlib import Path

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_models.paths import CrossPlatformPath, Platform
from linnix_plugin_models.syncfile import Host, SyncFile, read_sync_file, this_location

__all__ = ["Place", "find_place"]


@attrs.frozen(kw_only=True)
class Place:
    """A path at a location."""

    location: str
    #: As that location writes it.
    path: str
    #: Where this machine sees it: itself, or through a mount; None if it does not.
    local: Path | None = None
    #: The host to ask where it does not.
    host: Host | None = None
    remote: CrossPlatformPath | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return self.location == this_location()


def find_place(path: str, location: str | None = None, sync: SyncFile | None = None) -> Place:
    """What ``path`` at ``location`` means.

    Without a location a Windows path is on Windows and every other one here. A path that lies
    in a mount of the location is translated. Raises `LinnixError`.
    """
    sync = sync or read_sync_file()
    here = this_location()
    try:
        told = CrossPlatformPath(path)
    except ValueError as error:
        raise LinnixError(f"{printable(path, 200)!r} is no path: {error}") from None
    if location is None:
        location = "windows" if told.platform == "windows" and here != "windows" else here
    if location == here:
        absolute = Path(path).expanduser().absolute()
        return Place(location=here, path=str(absolute), local=absolute)
    found = sync.host_of(location)
    hostname = found[0] if found else None
    platform: Platform | None = sync.platform_of(location)
    mounts = sync.path_map()
    foreign = told.platform == "windows" and here != "windows"
    seen = None if foreign else mounts.to_remote(Path(path))
    try:
        if (
            seen is not None
            and seen[0].host in (None, hostname)
            and platform in (None, seen[1].platform)
        ):
            told = seen[1]  # given as this machine sees it
        elif platform is not None:
            told = CrossPlatformPath(path, platform)
    except ValueError as error:
        raise LinnixError(f"{printable(path, 200)!r}: {error}") from None
    if not told.is_absolute:
        raise LinnixError(
            f"{printable(path, 200)!r} is not absolute", hint=f"as {location} calls it, please"
        )
    shown = mounts.to_local(told, hostname)
    return Place(
        location=location,
        path=told.to_windows("forward") if told.platform == "windows" else told.to_posix(),
        local=shown[1] if shown and shown[0].is_accessible() else None,
        host=found[1] if found else None,
        remote=told,
    )
