"""What can go wrong, as exceptions with an exit code and a next step.

The command line prints ``str(error)`` and, on a line of its own, ``error.hint``;
a traceback is only ever shown with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "AgentStopped",
    "ConfigError",
    "LinnixError",
    "PluginError",
    "PluginUnavailable",
    "Problem",
    "RecordsLost",
    "RequiredComponentFailed",
]


class LinnixError(Exception):
    """Base of every error that Linnix raises on purpose.

    ``exit_code`` is what the process ends with when the error reaches the command
    line: 1 failed while running, 2 usage or configuration, 3 a required component.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Problem(NamedTuple):
    """One mistake in the configuration.

    ``path`` is dotted (``handlers.jsonl.max_bytes``), ``reason`` a clause such as
    ``expected a whole number, got 'many'``, ``suggestion`` what to write instead.
    """

    path: str
    reason: str
    suggestion: str | None = None

    def __str__(self) -> str:
        said = f"{self.path}: {self.reason}"
        return f"{said} ({self.suggestion})" if self.suggestion else said


class ConfigError(LinnixError):
    """The configuration is wrong; ``problems`` holds every mistake, not the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class PluginError(LinnixError):
    """A plugin cannot be used. ``code`` is the reason code its component shows."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class PluginUnavailable(LinnixError):
    """Raised by a plugin that works but not here: no capability, no library, no server.

    The component becomes ``unavailable`` with the message as its reason, once, and the
    run goes on. Say what is missing and put the next step into ``hint``:

        raise PluginUnavailable("libbpf is not installed", hint="apt install libbpf1")
    """


class RecordsLost(LinnixError):
    """Raised by ``linnix_handle`` when part of a batch could not be delivered.

    ``count`` records of the batch are counted as lost for the reason ``why``, the rest
    as handled, and the component shows as degraded until a batch passes whole. Unlike
    any other exception it does not count towards quarantine: the handler is alive and
    knows what it did.
    """

    def __init__(self, count: int, why: str, message: str) -> None:
        super().__init__(message)
        self.count = int(count)
        self.why = str(why)


class RequiredComponentFailed(LinnixError):
    """A component that must start did not: named on the command line, or ``required``."""

    exit_code = 3


class AgentStopped(LinnixError):
    """Something was asked of an agent that does not run (``submit`` without a run)."""
