"""Which local folder shows which remote one, in both directions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import attrs

from linnix_plugin_models.paths import CrossPlatformPath

__all__ = ["MountPoint", "PathMap"]

#: A network mount whose server is gone answers nothing; it is given up after this long.
PROBE_TIMEOUT_S = 5.0


@attrs.frozen
class MountPoint:
    """A remote folder that this machine shows as ``local_path``."""

    name: str
    local_path: Path
    remote_path: CrossPlatformPath
    #: The host whose folder it is; None where the remote path alone tells.
    host: str | None = None

    def is_accessible(self) -> bool:
        """Whether it is there. An empty folder is a mount point without its mount."""
        answer: list[bool] = []

        def look() -> None:
            try:
                answer.append(
                    self.local_path.is_mount()
                    or (self.local_path.is_dir() and any(self.local_path.iterdir()))
                )
            except OSError:
                answer.append(False)

        thread = threading.Thread(target=look, name=f"mount-{self.name}", daemon=True)
        thread.start()
        thread.join(PROBE_TIMEOUT_S)
        return bool(answer and answer[0])


class PathMap:
    """Translates between remote paths and the mounts that show them.

    Whole parts are compared, the longest mount wins, ``..`` is resolved before and cannot
    lead out, upper and lower case, and accents, are as the remote platform has them.
    """

    def __init__(self, mounts: Iterable[MountPoint]) -> None:
        self._mounts = sorted(mounts, key=lambda mount: -len(mount.remote_path.parts))

    def to_local(
        self, remote: CrossPlatformPath, host: str | None = None
    ) -> tuple[MountPoint, Path] | None:
        """The mount and the local path of ``remote``, accessible or not; None without a mount.

        With ``host`` only its mounts count, and those that name none.
        """
        for mount in self._mounts:
            if host is not None and mount.host not in (None, host):
                continue
            below = remote.relative_to(mount.remote_path)
            if below is not None:
                return mount, mount.local_path.joinpath(*below)
        return None

    def to_remote(self, local: Path) -> tuple[MountPoint, CrossPlatformPath] | None:
        """The mount that ``local`` lies in, and the path that its own host gives it."""
        absolute = Path(local).expanduser().absolute()
        path = CrossPlatformPath(absolute, "linux")
        for mount in sorted(self._mounts, key=lambda mount: -len(mount.local_path.parts)):
            root = CrossPlatformPath(mount.local_path.absolute(), "linux")
            below = path.relative_to(root)
            if below is not None:
                return mount, mount.remote_path / below
        return None
