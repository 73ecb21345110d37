"""The handler: its configuration, the rules that it runs, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from linnix_core import Alert, Batch, Context, Health, PluginUnavailable, hookimpl
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import RuleFileError, read_rules

__all__ = ["RulesConfig", "RulesHandler"]


@attrs.frozen
class RulesConfig:
    """Which rules to apply."""

    ARG: ClassVar[str] = "path"

    path: Path | None = attrs.field(
        default=None,
        metadata={"help": "YAML or TOML file of rules; without one the shipped rules apply"},
    )


class RulesHandler:
    """Raise alerts from forks and samples, as a file of rules says."""

    Config = RulesConfig

    def __init__(self, config: RulesConfig, context: Context) -> None:
        path = None if config.path is None else _expanded(config.path)
        try:
            self._file = read_rules(path)
        except RuleFileError as error:
            raise PluginUnavailable(
                str(error), hint="correct it, or leave out path to use the shipped rules"
            ) from None
        for sentence in self._file.not_loaded:
            context.logger.warning("%s: %s", self._file.source, sentence)
        if not self._file.rules:
            context.logger.warning("%s: no rule is loaded", self._file.source)
        self._engine = Engine(self._file.rules)

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """Alerts of the rules that fire on these records."""
        return self._engine.handle(batch)

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits name the rules that are not loaded."""
        limits = list(self._file.not_loaded)
        if not self._file.rules:
            limits.append("no rule is loaded")
        if evicted := self._engine.tree.evicted:
            limits.append(f"{evicted} processes had to be forgotten: there were too many")
        return Health(limits=tuple(limits))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # Reading it will say that there is no such file.
