"""What every living process runs, so that a child can be judged by its parent."""

from __future__ import annotations

from collections import OrderedDict

from linnix_core import ProcessEvent, ProcessKey, ProcessView
from linnix_plugin_sigma.execution import Image

__all__ = ["MAX_IMAGES", "Parents"]

#: Processes remembered; beyond that the one that was noticed first is forgotten.
MAX_IMAGES = 65_536

_UNKNOWN = Image()


class Parents:
    """Follows events one by one, and knows of each moment what a process ran then.

    The process table of the run is ahead of a handler: there, a parent that started a shell
    and then replaced itself is already what it became. So it is asked only for processes
    that are not known here, such as the dead.
    """

    def __init__(self, processes: ProcessView) -> None:
        self._processes = processes
        self._images: OrderedDict[tuple[str, int, int], Image] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)

    def follow(self, event: ProcessEvent) -> None:
        """Take note of an event; to be called in their order."""
        key = (event.boot_id, event.pid, event.start_ns)
        if event.kind == "exit":
            self._images.pop(key, None)
        elif event.kind in ("seen", "exec"):
            self._keep(key, Image(event.exe, event.args))
        elif event.kind == "fork":
            # A fork runs what its parent runs, and may have an event that does not say so.
            inherited = self.of(event) if event.args is None else _UNKNOWN
            self._keep(key, Image(event.exe or inherited.exe, event.args or inherited.args))

    def of(self, event: ProcessEvent) -> Image:
        """What the parent of this event's process runs."""
        if event.ppid is None or event.parent_start_ns is None:
            return _UNKNOWN
        image = self._images.get((event.boot_id, event.ppid, event.parent_start_ns))
        if image is not None:
            return image
        parent = self._processes.get(ProcessKey(event.boot_id, event.ppid, event.parent_start_ns))
        return _UNKNOWN if parent is None else Image(parent.exe, parent.args)

    def _keep(self, key: tuple[str, int, int], image: Image) -> None:
        self._images[key] = image
        if len(self._images) > MAX_IMAGES:
            self._images.popitem(last=False)
