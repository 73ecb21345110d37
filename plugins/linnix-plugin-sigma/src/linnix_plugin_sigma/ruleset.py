"""All rules of a folder: which can be used, which cannot and why, and which an exec meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from linnix_core import printable
from linnix_plugin_sigma.execution import Execution
from linnix_plugin_sigma.folder import RuleFile
from linnix_plugin_sigma.rules import Rule, parse_rules

__all__ = ["Refused", "RuleSet"]


class Refused(NamedTuple):
    """A rule that cannot be used, or a file that holds none; both texts are safe to show."""

    file: str
    reason: str


class RuleSet:
    """Rules by the executables that they are about, so that an exec asks few of them."""

    def __init__(self) -> None:
        self.loaded = 0
        self.refused: list[Refused] = []
        self._by_image: dict[str, list[Rule]] = {}
        self._of_any: list[Rule] = []
        self._files: dict[str, str] = {}

    def read(self, file: RuleFile) -> Iterator[Rule]:
        """The rules of a file that can be used; the others are noted in ``refused``."""
        if file.reason:
            self._refuse(file, file.reason)
            return
        for rule in parse_rules(file.text):
            if isinstance(rule, str):
                self._refuse(file, rule)
            elif rule.id in self._files:
                self._refuse(file, f"{self._files[rule.id]} has a rule of the same id")
            else:
                if rule.id:
                    self._files[rule.id] = file.name
                self.loaded += 1
                yield rule

    def use(self, rules: Iterable[Rule]) -> None:
        """Let execs be judged by these rules."""
        for rule in rules:
            if rule.images is None:
                self._of_any.append(rule)
            else:
                for name in rule.images:
                    self._by_image.setdefault(name, []).append(rule)

    def matching(self, execution: Execution) -> list[Rule]:
        """The rules in use that an exec meets."""
        name = (execution.small[0] or "").rpartition("/")[2]
        about = self._by_image.get(name, ())
        return [
            rule for rules in (about, self._of_any) for rule in rules if rule.matches(execution)
        ]

    def _refuse(self, file: RuleFile, reason: str) -> None:
        self.refused.append(Refused(file.name, printable(" ".join(reason.split()), 300)))
