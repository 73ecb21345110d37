"""The metadata of what is installed: the folders of it that are on the path, file by file.

`importlib.metadata` is asked only about what is in no folder (zip files, eggs, what other finders
know): importing it, with ``email``, ``socket`` and ``zipfile``, takes longer than all that most
commands do.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

__all__ = ["Distribution", "distributions"]


class Distribution(NamedTuple):
    """One that is installed: its folder's name, and the text of its files of metadata."""

    folder: str
    #: As that of `importlib.metadata.Distribution`: None for what is not there, and
    #: ``ValueError`` for what is no text.
    read_text: Callable[[str], str | None]


def distributions(path: Sequence[str] | None = None) -> Iterator[Distribution]:
    """What `importlib.metadata.distributions` finds on ``path`` (default: ``sys.path``)."""
    # Imports look at strings only, too.
    path = [entry for entry in (sys.path if path is None else path) if isinstance(entry, str)]
    for finder in sys.meta_path:
        if finder is PathFinder and hasattr(finder, "find_distributions"):
            for entry in path:
                yield from _at(entry)
        elif hasattr(finder, "find_distributions"):
            yield from _asked(finder, path)


def _at(entry: str) -> Iterable[Distribution]:
    if entry.lower().endswith(".egg"):
        return _asked(PathFinder, [entry])
    try:
        with os.scandir(entry or ".") as found:
            return [
                Distribution(folder.name, _Files(folder.path))
                for folder in found
                if folder.name.lower().endswith((".dist-info", ".egg-info"))
            ]
    except NotADirectoryError:
        return _asked(PathFinder, [entry])
    except OSError:
        return ()


class _Files:
    """Reads the files of one folder."""

    __slots__ = ("_folder",)

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, name: str) -> str | None:
        try:
            with io.FileIO(f"{self._folder}/{name}") as file:
                content = file.read()
        except OSError:
            return None
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")


def _asked(finder: Any, path: list[str]) -> Iterator[Distribution]:
    from importlib.metadata import DistributionFinder

    for found in finder.find_distributions(DistributionFinder.Context(path=path)):
        folder = getattr(getattr(found, "_path", None), "name", "unknown")
        yield Distribution(folder, found.read_text)
