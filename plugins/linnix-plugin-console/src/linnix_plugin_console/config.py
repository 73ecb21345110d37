"""What the console can be told."""

from typing import Any, ClassVar, Literal

import attrs

from linnix_core import Duration

__all__ = ["ConsoleConfig"]


def _one_of(*modes: str) -> Any:
    def check(_: Any, field: Any, value: str) -> None:
        if value not in modes:
            raise ValueError(f"{field.name} must be one of {', '.join(modes)}, not {value!r}")

    return check


def _at_least(least: float, *, or_zero: bool = False) -> Any:
    def check(_: Any, field: Any, value: float) -> None:
        if value < least and not (or_zero and value == 0):
            zero = "0 or " if or_zero else ""
            raise ValueError(f"{field.name} must be {zero}at least {least:g}, not {value:g}")

    return check


@attrs.frozen
class ConsoleConfig:
    """Keys of ``[handlers.console]``."""

    #: What ``--handler console:plain`` sets.
    ARG: ClassVar[str] = "mode"

    mode: Literal["auto", "live", "plain"] = attrs.field(
        default="auto",
        validator=_one_of("auto", "live", "plain"),
        metadata={"help": "a live view, plain lines, or whichever suits standard output"},
    )
    refresh: Duration = attrs.field(
        default=Duration(1.0),
        validator=_at_least(0.1),
        metadata={"help": "live view: time between two redraws"},
    )
    top: int = attrs.field(
        default=8,
        validator=_at_least(0),
        metadata={"help": "live view: how many processes to show, by CPU"},
    )
    events: bool = attrs.field(
        default=False,
        metadata={"help": "plain lines: also one line per process event"},
    )
    summary: Duration = attrs.field(
        default=Duration(10.0),
        validator=_at_least(1.0, or_zero=True),
        metadata={"help": "plain lines: time between two summaries; 0 for none"},
    )
