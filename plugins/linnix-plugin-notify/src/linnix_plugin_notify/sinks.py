"""What a sink is: one service, to which one message at a time is delivered."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from linnix_core import LinnixError
from linnix_plugin_notify.message import Message

__all__ = ["NotNow", "Receipt", "Refused", "Sink"]

#: What a service gave to find a message again, as JSON values; kept on disk with the page.
Receipt: TypeAlias = dict[str, Any]


class NotNow(LinnixError):
    """Delivery failed and may work later.

    ``retry_after_s`` is what the service asked for. ``sure`` says that it has certainly not
    taken the message; otherwise the next try is made with ``again``. ``receipt`` holds what
    was reached before the failure.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after_s: float | None = None,
        sure: bool = False,
        receipt: Receipt | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        self.sure = sure
        self.receipt = receipt


class Refused(LinnixError):
    """The service will never take this message; others may pass."""


class Sink(Protocol):
    """One service. Called from one thread at a time."""

    #: Whether a later message about the same incident changes the first one in place. What
    #: cannot be changed is sent at the beginning and at the end only.
    updates: bool

    #: Whether the same message delivered twice is there once.
    idempotent: bool

    def deliver(self, message: Message, to: str, receipt: Receipt, *, again: bool) -> Receipt:
        """Deliver, and return what finds it again; raise `NotNow` or `Refused`.

        ``receipt`` is what the delivery before returned for this page, empty for the first.
        ``again``: this message may have arrived already.
        """
        ...

    def close(self) -> None:
        """Release what was opened; called from any thread, maybe during `deliver`."""
        ...
