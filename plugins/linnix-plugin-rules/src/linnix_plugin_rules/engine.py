"""Records in, alerts out: the tree, the windows, the detectors, the cooldowns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import attrs

from linnix_core import (
    Alert,
    IncidentClass,
    Loss,
    ProcessEvent,
    ProcessSample,
    Record,
    Severity,
    Subject,
    SystemSample,
)
from linnix_plugin_rules.detector import Detector, Finding
from linnix_plugin_rules.forks import NEVER, ForkDetector
from linnix_plugin_rules.rounds import Round, RoundDetector
from linnix_plugin_rules.tree import MAX_PROCESSES, Process, Tree
from linnix_plugin_rules.windows import ForkWindow

__all__ = ["Engine", "Rule"]

#: Records come nearly in order; one that is older than this shows that the clock was set back.
CLOCK_SET_BACK_NS = 60_000_000_000

#: A round of samples is complete when a record is this much younger, at the latest.
ROUND_NS = 500_000_000

#: Pairs of rule and subject whose last alert is remembered.
MAX_COOLDOWNS = 8_192


@attrs.frozen
class Rule:
    """One rule of the file."""

    name: str
    detector: Detector
    severity: Severity = "info"
    cooldown_s: float = 60
    class_: IncidentClass | None = None

    @property
    def cooldown_ns(self) -> int:
        """How long it stays silent about one process; never shorter than a tenth of a second."""
        return int(max(self.cooldown_s, 0.1) * 1e9)


class Engine:
    """Applies rules to records, one after the other; only their time and order matter.

    Where a batch ends makes no difference, so a replay raises the same alerts.
    """

    def __init__(self, rules: Sequence[Rule], tree: Tree | None = None) -> None:
        self._rules = rules
        self.tree = Tree() if tree is None else tree
        self._start(0)

    def _start(self, now_ns: int) -> None:
        """Begin with nothing counted; the tree stays as it is."""
        self._now_ns = now_ns
        self._round: dict[Process, ProcessSample] = {}
        self._round_ns = -1  # of the open round, else of the last one
        self._round_ends_ns = NEVER
        self._cooldowns: OrderedDict[tuple[str, Hashable], int] = OrderedDict()
        self._fork_rules: list[tuple[ForkWindow, list[tuple[Rule, ForkDetector]]]] = []
        self._round_rules: list[tuple[Rule, RoundDetector]] = []
        windows: dict[float, list[tuple[Rule, ForkDetector]]] = {}
        for rule in self._rules:
            rule.detector.start()
            if isinstance(rule.detector, ForkDetector):
                windows.setdefault(rule.detector.length_s, []).append((rule, rule.detector))
            elif isinstance(rule.detector, RoundDetector):
                self._round_rules.append((rule, rule.detector))
        for length_s, rules in windows.items():
            window = ForkWindow(length_s)
            window.limit = min(detector.limit for _, detector in rules)
            self._fork_rules.append((window, rules))

    def handle(self, records: Iterable[Record]) -> list[Alert]:
        """The alerts that these records give rise to, in order."""
        alerts: list[Alert] = []
        tree, now_ns = self.tree, self._now_ns
        for record in records:
            if type(record) is Loss:
                continue  # it is of the agent's time, not of what is played back
            ts_ns = record.ts_ns
            if ts_ns > now_ns:
                self._now_ns = now_ns = ts_ns
            elif ts_ns < now_ns - CLOCK_SET_BACK_NS:
                self._start(ts_ns)
                now_ns = ts_ns
            if ts_ns >= self._round_ends_ns:
                alerts += self._judge_round()
            if type(record) is ProcessEvent:
                kind = record.kind
                if kind == "fork":
                    forker, origin = tree.fork(record)
                    for window, rules in self._fork_rules:
                        if window.add(now_ns, forker, origin):
                            for rule, detector in rules:
                                finding = detector.look(window, now_ns)
                                if finding is not None:
                                    alerts += self._alerts(rule, [finding], now_ns)
                                    detector.rest(window, self._silent_until(rule, finding))
                elif kind == "exit":
                    tree.exit(record)
                elif kind != "oom":
                    tree.learn(record)
            elif type(record) is ProcessSample:
                alerts += self._sample(record)
            elif type(record) is SystemSample and ts_ns == self._round_ns and self._round:
                # A collector that measures the machine in the same poll does so last.
                alerts += self._judge_round()
        return alerts

    def _sample(self, sample: ProcessSample) -> list[Alert]:
        process = self.tree.sampled(sample)
        alerts: list[Alert] = []
        if not self._round_rules:
            return alerts
        if self._round and sample.ts_ns > self._round_ns:
            alerts = self._judge_round()
        if not self._round:
            if sample.ts_ns <= self._round_ns:
                return alerts  # Too late: its round has been judged.
            self._round_ns = sample.ts_ns
            self._round_ends_ns = sample.ts_ns + ROUND_NS
        if len(self._round) < MAX_PROCESSES:
            self._round[process] = sample
        return alerts

    def _judge_round(self) -> list[Alert]:
        samples, self._round = Round(self._round_ns, self._round), {}
        self._round_ends_ns = NEVER
        alerts: list[Alert] = []
        for rule, detector in self._round_rules:
            alerts += self._alerts(rule, detector.on_round(samples), samples.ts_ns)
        return alerts

    def _alerts(self, rule: Rule, findings: Iterable[Finding], now_ns: int) -> Iterator[Alert]:
        for finding in findings:
            if now_ns < self._silent_until(rule, finding):
                continue
            cooldown = rule.name, finding.subject
            self._cooldowns[cooldown] = now_ns + rule.cooldown_ns
            self._cooldowns.move_to_end(cooldown)
            if len(self._cooldowns) > MAX_COOLDOWNS:
                self._cooldowns.popitem(last=False)
            process = finding.process
            yield Alert(
                rule=rule.name,
                severity=rule.severity,
                message=finding.message,
                class_=rule.class_,
                subject=Subject() if process is None else process.subject,
                evidence=finding.evidence,
                ts_ns=now_ns,
                boot_id="" if process is None else process.boot_id,
            )

    def _silent_until(self, rule: Rule, finding: Finding) -> int:
        return self._cooldowns.get((rule.name, finding.subject), 0)
