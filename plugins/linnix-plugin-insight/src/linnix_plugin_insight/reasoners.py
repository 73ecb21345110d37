"""Reasoners by their names, opened without an agent."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from linnix_core import Answer, ReasonRequest
from linnix_core.commands import Catalog, PluginHost, find_file, read

__all__ = ["Reasoner", "opened"]

#: Seconds that a reasoner may take to say how many tokens it used, and to end.
METRICS_S = 2.0
STOP_S = 10.0

#: What a metric is called that counts tokens, labelled with their direction.
TOKENS = "linnix_llm_tokens"


@attrs.frozen
class Reasoner:
    """One that is open: asked through the core, so under its deadlines and guards."""

    name: str
    component: Any

    def ask(self, request: ReasonRequest) -> Answer | None:
        """Its answer; None if it declines. Raises `LinnixError` for whatever goes wrong."""
        answer: Answer | None = self.component.call_within(
            request.timeout_s, "linnix_reason", request=request
        )
        return answer

    def tokens(self) -> dict[str, int] | None:
        """Tokens by direction as its metrics count them; None if it has no such metric."""
        metrics = self.component.call_within(METRICS_S, "linnix_metrics") or ()
        found: dict[str, int] = {}
        for metric in metrics:
            if metric.name == TOKENS:
                direction = str(metric.labels.get("direction", "all"))
                found[direction] = found.get(direction, 0) + int(metric.value)
        return found or None

    def about(self) -> dict[str, Any]:
        """Which distribution it is of, and what it says of itself, such as its model."""
        status = self.component.status()
        health = self.component.ask_health(METRICS_S)
        return {
            "distribution": status.distribution,
            "version": status.version,
            "says": list(health.limits) if health else [],
        }


@contextmanager
def opened(names: Sequence[str], config: str | None = None) -> Iterator[list[Reasoner]]:
    """These reasoners, with their tables of the configuration; stopped at the end.

    Raises `LinnixError` that says which cannot be used, and why.
    """
    settings = read(find_file(config))
    tables = {c.name: c.options for c in settings.components if c.kind == "reasoners"}
    with tempfile.TemporaryDirectory(prefix="linnix-insight-") as folder:
        host = PluginHost(Catalog.scan(), data_dir=Path(folder))
        try:
            yield [
                Reasoner(name, host.open("reasoners", name, tables.get(name, {})))
                for name in dict.fromkeys(names)
            ]
        finally:
            host.stop(time.monotonic() + STOP_S)
