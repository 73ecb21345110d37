"""Which processes a rule is about: the ``match`` and ``except`` of a rule."""

from __future__ import annotations

import fnmatch
import pwd
import re
from collections.abc import Sequence
from typing import Any

import attrs

from linnix_core import printable
from linnix_plugin_rules.tree import Process

__all__ = [
    "EVERYBODY",
    "Match",
    "Regex",
    "Selection",
    "command_line",
    "patterns",
    "regex",
    "users",
]

#: Characters of a command line that are looked through.
MAX_COMMAND = 4096

#: What one regular expression may use for its automaton, in bytes (RE2's default is 8 MiB). A
#: text that would need more is searched more slowly, and still in linear time.
REGEX_BYTES = 2**20


@attrs.frozen
class Regex:
    """A regular expression that runs on RE2; equal to any other of the same text.

    The time of a search grows with the length of what is searched only, so that no command
    line can stall the handler.
    """

    text: str
    _compiled: Any = attrs.field(eq=False, repr=False)

    def search(self, text: str) -> bool:
        """Whether it is found somewhere in the text."""
        # As bytes: RE2 would count characters to tell where, which nobody asks for.
        return self._compiled.search(text.encode(errors="replace")) is not None


@attrs.frozen
class Match:
    """Filters that all have to hold; None is no filter.

    ``exe`` and ``ancestor`` are patterns of whole paths, or of the last part where they have
    no slash, ``cgroup`` of a path; ``args`` is searched in the command line.
    """

    exe: re.Pattern[str] | None = None
    args: Regex | None = None
    user: frozenset[int] | None = None
    cgroup: re.Pattern[str] | None = None
    ancestor: re.Pattern[str] | None = None

    def accepts(self, process: Process) -> bool:
        """Whether the process is one of those that are meant. What is not known is not."""
        return (
            (self.exe is None or _is(process, self.exe))
            and (self.user is None or process.uid in self.user)
            and (self.cgroup is None or self.accepts_group(process.cgroup))
            and (self.args is None or self.args.search(command_line(process)))
            and (self.ancestor is None or self._has_ancestor(process))
        )

    def accepts_group(self, cgroup: str | None) -> bool:
        """Whether the filter for cgroups holds."""
        return self.cgroup is None or (cgroup is not None and bool(self.cgroup.match(cgroup)))

    def _has_ancestor(self, process: Process) -> bool:
        assert self.ancestor is not None
        above = process.parent
        while above is not None:
            if _is(above, self.ancestor):
                return True
            above = above.parent
        return False


@attrs.frozen
class Selection:
    """Who is matched and not excepted."""

    match: Match | None = None
    exception: Match | None = None

    def __contains__(self, process: Process | None) -> bool:
        if process is None:
            return self.match is None
        if self.match is not None and not self.match.accepts(process):
            return False
        return self.exception is None or not self.exception.accepts(process)

    def has_group(self, cgroup: str) -> bool:
        """The same for a cgroup as a whole, where there are no other filters."""
        if self.match is not None and not self.match.accepts_group(cgroup):
            return False
        return self.exception is None or not self.exception.accepts_group(cgroup)


#: Without any filter.
EVERYBODY = Selection()


def command_line(process: Process) -> str:
    """The executable and its arguments, as far as they are known, in one line."""
    words = [process.exe or process.comm, *(process.args or ())[1:]]
    return " ".join(words)[:MAX_COMMAND]


def _is(process: Process, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.match(process.exe or process.comm))


# --- what a file can say --------------------------------------------------------------


def _texts(value: object) -> Sequence[str | int]:
    values: list[Any] = value if isinstance(value, list) else [value]
    if not values or not all(type(each) in (str, int) and each != "" for each in values):
        raise ValueError("expected a text or a list of texts")
    return values


def patterns(value: object) -> re.Pattern[str]:
    """Shell patterns, one or several; without a slash they mean the last part of a path."""
    expressions = []
    for each in map(str, _texts(value)):
        whole = fnmatch.translate(each)
        expressions.append(whole if "/" in each or each == "*" else rf"(?:.*/)?{whole}")
    return re.compile("|".join(f"(?:{each})" for each in expressions), re.DOTALL)


def regex(value: object) -> Regex:
    """A regular expression of RE2."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected a regular expression")
    import re2  # type: ignore[import-untyped]  # Not before: most rules have none.

    options = re2.Options()
    options.log_errors = False
    options.max_mem = REGEX_BYTES
    options.never_capture = True
    try:
        return Regex(value, re2.compile(value.encode(), options))
    except UnicodeEncodeError:
        reason = "not valid Unicode"
    except re2.error as error:
        said = error.args[0]
        reason = said.decode(errors="replace") if isinstance(said, bytes) else said
    raise ValueError(
        "expected a regular expression of RE2, which supports no look-around and no "
        f"back-references ({printable(reason, limit=60)})"
    )


def users(value: object) -> frozenset[int]:
    """Numbers of users, from numbers or names, one or several."""
    return frozenset(_uid(each) for each in _texts(value))


def _uid(user: str | int) -> int:
    try:
        number = isinstance(user, int) or user.isdecimal()
        uid = int(user) if number else pwd.getpwnam(str(user)).pw_uid
    except (KeyError, ValueError):
        uid = -1
    if not 0 <= uid < 2**32 - 1:  # to the kernel, the largest is nobody
        raise ValueError("expected names or numbers of users of this machine")
    return uid
