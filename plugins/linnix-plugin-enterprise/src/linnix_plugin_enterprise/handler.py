"""The handler: the state of the license as health, and the features as a page."""

from __future__ import annotations

from typing import Any

from linnix_core import Context, Health, Mount, hookimpl

__all__ = ["EnterpriseHandler"]


class EnterpriseHandler:
    """Show the state of the license, and which features are installed, licensed and running."""

    def __init__(self, config: None, context: Context) -> None:
        self._context = context

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while no license holds, or it has ended and grace runs."""
        verdict = self._judge()
        return Health("ok" if verdict.state == "valid" else "degraded", verdict.reason)

    @hookimpl
    def linnix_http(self) -> list[Mount]:
        """``/features``: the table, as a page, as text and as JSON."""
        from linnix_plugin_enterprise.page import FeaturesPage

        return [Mount("/features", FeaturesPage(self._table), "Features")]

    def _judge(self) -> Any:
        from linnix_plugin_enterprise.judging import Verdict, judge
        from linnix_plugin_enterprise.store import folder_of

        try:
            folder = folder_of(self._context)
        except OSError as error:
            return Verdict("missing", f"its folder cannot be read: {error.strerror}")
        return judge(folder, self._context.clock.time_ns() / 1e9, keep=True)

    def _table(self) -> tuple[Any, ...]:
        from linnix_plugin_enterprise.features import Running, features, installed

        verdict = self._judge()
        running = Running.of(
            ((each.distribution, each.state) for each in self._context.components()),
            "this agent",
        )
        return features(installed(), verdict, running), verdict, running
