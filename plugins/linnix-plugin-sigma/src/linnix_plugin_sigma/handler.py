"""The handler: every exec is shown to the rules, and what they recognise becomes an alert."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from linnix_core import (
    Alert,
    Batch,
    Context,
    Evidence,
    Health,
    Metric,
    PluginUnavailable,
    ProcessEvent,
    Severity,
    Subject,
    hookimpl,
    printable,
)
from linnix_plugin_sigma.config import LEVELS, Level, SigmaConfig
from linnix_plugin_sigma.cooldown import Cooldowns
from linnix_plugin_sigma.execution import describe
from linnix_plugin_sigma.folder import RuleFile, read_files
from linnix_plugin_sigma.parents import Parents

if TYPE_CHECKING:
    from linnix_plugin_sigma.rules import Rule
    from linnix_plugin_sigma.ruleset import RuleSet

__all__ = ["SigmaHandler"]

#: Seconds for which the start parses rules, some thousands; the first batch waits for the rest.
START_S = 4.0

#: Reasons in the log; ``linnix sigma check`` has all of them.
_MAX_LOGGED = 20

_SEVERITIES: dict[Level, Severity] = {
    "informational": "info",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "critical": "critical",
}


class SigmaHandler:
    """Run Sigma rules for Linux process creation on every exec."""

    Config = SigmaConfig

    def __init__(self, config: SigmaConfig, context: Context) -> None:
        self._config = config
        self._logger = context.logger
        self._parents = Parents(context.processes)
        self._cooldowns = Cooldowns(round(config.cooldown * 1e9))
        self._levels = LEVELS[LEVELS.index(config.min_level) :]
        self._unseen = set(config.ignore)
        self._rules: RuleSet | None = None
        self._unread: Iterator[RuleFile] | None = None
        self._in_use = 0
        self._matches = 0

    @hookimpl
    def linnix_start(self) -> None:
        """Read every file, and parse rules for a while."""
        # pySigma takes a quarter of a second to import.
        from linnix_plugin_sigma.ruleset import RuleSet

        files = read_files(self._config.path)
        self._rules = RuleSet()
        self._unread = iter(files)
        enough = time.monotonic() + START_S
        for file in self._unread:
            self._use(self._rules, file)
            if time.monotonic() > enough:
                self._logger.info("%d files of rules are parsed with the first batch", len(files))
                return
        self._unread = None
        self._tell(self._rules)
        if not self._in_use:
            path = printable(self._config.path)
            raise PluginUnavailable(
                f"there is no rule in {path} that can run",
                hint=f"see why: linnix sigma check {path}",
            )

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """Judge every exec."""
        rules = self._rules
        if rules is None:
            return []
        if self._unread is not None:
            for file in self._unread:
                self._use(rules, file)
            self._unread = None
            self._tell(rules)
        alerts: list[Alert] = []
        for record in batch:
            if isinstance(record, ProcessEvent):
                if record.kind == "exec":
                    execution = describe(record, self._parents.of(record))
                    for rule in rules.matching(execution):
                        self._matches += 1
                        what = record.exe or record.comm
                        if count := self._cooldowns.admit(rule, what, record.ts_ns):
                            alerts.append(_alert(rule, record, execution.exact[1], count))
                self._parents.follow(record)
        return alerts

    @hookimpl
    def linnix_health(self) -> Health:
        """Ok, with the number of rules that cannot be used; degraded while none or not all run."""
        rules = self._rules
        if rules is None:
            return Health()
        limits = []
        if rules.refused:
            limits.append(
                f"{len(rules.refused)} rules or files cannot be used, {self._in_use} rules run: "
                f"linnix sigma check {printable(self._config.path)}"
            )
        if self._unread is not None:
            return Health("degraded", "rules are still to be parsed", tuple(limits))
        if not self._in_use:
            return Health("degraded", "there is no rule that can run", tuple(limits))
        return Health(limits=tuple(limits))

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Rules and what they recognised."""
        refused = 0 if self._rules is None else len(self._rules.refused)
        return (
            Metric("sigma_rules", self._in_use, "{rule}", help="Rules that run"),
            Metric("sigma_refused", refused, "{rule}", help="Rules that cannot be used"),
            Metric(
                "sigma_matches", self._matches, "{execution}", "counter",
                help="Execs that a rule recognised, silenced ones included",
            ),
        )  # fmt: skip

    def _use(self, rules: RuleSet, file: RuleFile) -> None:
        for rule in rules.read(file):
            names = {rule.id, rule.title}
            self._unseen -= names
            if rule.level in self._levels and names.isdisjoint(self._config.ignore):
                rules.use([rule])
                self._in_use += 1

    def _tell(self, rules: RuleSet) -> None:
        for file, reason in itertools.islice(rules.refused, _MAX_LOGGED):
            self._logger.warning("%s cannot be used: %s", file, reason)
        if (more := len(rules.refused) - _MAX_LOGGED) > 0:
            path = printable(self._config.path)
            self._logger.warning("and %d more: linnix sigma check %s", more, path)
        for name in sorted(self._unseen):
            self._logger.warning("ignore: there is no rule %s", printable(name, 160))
        self._logger.info("%d of %d Sigma rules run", self._in_use, rules.loaded)


def _alert(rule: Rule, event: ProcessEvent, command_line: str | None, count: int) -> Alert:
    about = {
        "sigma.id": rule.id,
        "sigma.author": rule.author,
        "sigma.tags": ", ".join(rule.tags),
    }
    who = printable(event.exe or event.comm, 160)
    message = f"{rule.title}: {who} (pid {event.pid})"
    if command_line:
        message += f" ran as: {printable(command_line, 300)}"
    return Alert(
        rule=f"sigma: {rule.title}",
        severity=_SEVERITIES[rule.level],
        message=message,
        subject=Subject(event.key, event.exe, event.comm, event.cgroup),
        evidence=(Evidence("executions", count, "executions"),),
        labels={**(event.labels or {}), **{name: text for name, text in about.items() if text}},
        ts_ns=event.ts_ns,
        boot_id=event.boot_id,
    )
