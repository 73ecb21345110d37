"""Whether the events of the kernel are being seen, by the rule that ``/readyz`` has everywhere."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from linnix_core import ComponentStatus

__all__ = ["Visibility", "visibility"]

#: Collectors that are told by the kernel; the others look from time to time.
KERNEL_PLUGINS = ("ebpf", "bcc")


@attrs.frozen
class Visibility:
    """``transport`` is the collector that sees, else ``userspace``; ``reason`` says why not."""

    active: bool
    transport: str
    reason: str = ""


def visibility(components: Iterable[ComponentStatus], event_seen: bool) -> Visibility:
    """From the collectors, and from whether an event came that the kernel reported.

    Such an event counts also where somebody else's collector brought it; but not while one
    of `KERNEL_PLUGINS` was meant to and does not run: then it is from before.
    """
    collectors = [status for status in components if status.kind == "collectors"]
    running = [status for status in collectors if status.state in ("running", "degraded")]
    meant = [each for each in collectors if (each.plugin or each.name) in KERNEL_PLUGINS]
    seeing = [status for status in running if status in meant] or ([] if meant else running)
    if seeing and event_seen:
        return Visibility(True, seeing[0].name)
    if seeing and meant:
        component = seeing[0].component
        return Visibility(False, seeing[0].name, f"{component} has not seen an event yet")
    said = "; ".join(
        f"{each.component} is {each.state}: {each.reason or 'not started'}"
        for each in meant or collectors
        if each not in running
    )
    polling = ", ".join(status.component for status in running) or "nobody"
    reason = f"processes are polled by {polling}, not seen by the kernel"
    return Visibility(False, "userspace", f"{reason} ({said})" if said else reason)
