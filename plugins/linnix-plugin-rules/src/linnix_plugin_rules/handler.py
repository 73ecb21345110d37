"""The handler: its configuration, the rules that it runs, and what it says of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import attrs

from linnix_core import Alert, Batch, Context, Health, Metric, PluginUnavailable, hookimpl
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import RuleFile, RuleFileError, read_rules

__all__ = ["RulesConfig", "RulesHandler"]

#: Seconds between two looks at whether the file has changed.
LOOK_EVERY_S = 1.0


@attrs.frozen
class RulesConfig:
    """Which rules to apply."""

    ARG: ClassVar[str] = "path"

    path: Path | None = attrs.field(
        default=None,
        metadata={"help": "YAML or TOML file of rules; without one the shipped rules apply"},
    )
    reload: bool = attrs.field(
        default=True,
        metadata={"help": "read the file again when it has changed, not only on SIGHUP"},
    )


class RulesHandler:
    """Raise alerts from events and samples, as a file of rules says."""

    Config = RulesConfig

    def __init__(self, config: RulesConfig, context: Context) -> None:
        # Absolute, so that a later change of the working directory moves nothing.
        self._path = None if config.path is None else _expanded(config.path).absolute()
        self._watches = config.reload and self._path is not None
        self._logger = context.logger
        self._clock = context.clock
        self._trouble = ""
        self._looked = self._clock.monotonic()
        #: Read in another thread, and used in that of the records.
        self._next: RuleFile | None = None
        # Before it is read: what is written meanwhile is read once more.
        self._mark = self._look()
        try:
            self._file = read_rules(config.path and _expanded(config.path))
        except RuleFileError as error:
            raise PluginUnavailable(
                str(error), hint="correct it, or leave out path to use the shipped rules"
            ) from None
        self._say_if_empty()
        self._engine = Engine(self._file.rules)

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """Alerts of the rules that fire on these records."""
        self._reload_if_changed()
        return self._engine.handle(batch)

    @hookimpl
    def linnix_flush(self) -> None:
        """Nothing is kept back; but the file of rules may have changed."""
        self._reload_if_changed()

    @hookimpl
    def linnix_reload(self) -> None:
        """Read the file again, changed or not; the records that come next are judged by it.

        Raises `RuleFileError` where it cannot be used: the rules as they were go on.
        """
        if self._path is None:
            return
        self._mark = self._look()
        try:
            self._next = read_rules(self._path)
        except RuleFileError as error:
            self._trouble = _sentence(error)
            raise
        self._trouble = ""

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while a changed file cannot be used: the rules before go on."""
        limits = []
        if not self._file.rules:
            limits.append("no rule is loaded")
        if evicted := self._engine.tree.evicted:
            limits.append(f"{evicted} processes had to be forgotten: there were too many")
        if trouble := self._trouble:
            return Health("degraded", f"the rules as they were go on: {trouble}", tuple(limits))
        return Health(limits=tuple(limits))

    @hookimpl
    def linnix_metrics(self) -> list[Metric]:
        """How many rules apply."""
        return [Metric("rules_active", len(self._file.rules), "{rule}", help="Rules that apply")]

    # --- inside -----------------------------------------------------------------------

    def _reload_if_changed(self) -> None:
        if (file := self._next) is not None:
            self._next = None
            self._use(file)
        now = self._clock.monotonic()
        if not self._watches or now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        mark = self._look()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._use(read_rules(self._path))
        except RuleFileError as error:
            self._trouble = _sentence(error)
            self._logger.warning("%s; the rules as they were go on", error)

    def _use(self, file: RuleFile) -> None:
        before = {rule.name: rule for rule in self._file.rules}
        same = sum(before.get(rule.name) == rule for rule in file.rules)
        self._engine.use(file.rules)
        self._file, self._trouble = file, ""
        self._logger.info(
            "%s was read again: %d rules, %d of them as before", file.source, len(file.rules), same
        )
        self._say_if_empty()

    def _look(self) -> object:
        """What changes with the file: it may be written, replaced, removed or closed to us."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        readable = os.access(self._path, os.R_OK)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, readable

    def _say_if_empty(self) -> None:
        if not self._file.rules:
            self._logger.warning("%s: no rule is loaded", self._file.source)


def _sentence(error: RuleFileError) -> str:
    """The first mistakes, as health has little room."""
    lines = str(error).splitlines()
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # Reading it will say that there is no such file.
