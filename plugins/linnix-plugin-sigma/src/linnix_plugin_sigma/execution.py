"""An exec as Sigma's taxonomy for process creation describes it."""

from __future__ import annotations

import functools
import pwd
from typing import NamedTuple, TypeAlias

from linnix_core import ProcessEvent

__all__ = ["FIELDS", "Execution", "Image", "describe"]

#: The fields that rules may ask for, and where each has its place in an `Execution`. ``LogonId``
#: is the uid, as Sysmon for Linux reports it, for which these rules are written.
FIELDS = (
    "Image",
    "CommandLine",
    "ParentImage",
    "ParentCommandLine",
    "User",
    "CurrentDirectory",
    "LogonId",
)

_Texts: TypeAlias = tuple[str | None, ...]


class Image(NamedTuple):
    """What a process runs: its executable and arguments, None where that is not known."""

    exe: str | None = None
    args: tuple[str, ...] | None = None

    @property
    def command_line(self) -> str | None:
        """The arguments as one text. They are not quoted: Sigma's rules expect none of that."""
        return None if self.args is None else " ".join(self.args)


class Execution(NamedTuple):
    """The values of `FIELDS`, as they are and in small letters; None is not known."""

    exact: _Texts
    small: _Texts


def describe(event: ProcessEvent, parent: Image) -> Execution:
    """An exec with what its parent ran at that moment."""
    exact = (
        event.exe,
        Image(event.exe, event.args).command_line,
        parent.exe,
        parent.command_line,
        None if event.uid is None else _user(event.uid),
        event.cwd,
        None if event.uid is None else str(event.uid),
    )
    return Execution(exact, tuple([None if text is None else text.lower() for text in exact]))


@functools.lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
