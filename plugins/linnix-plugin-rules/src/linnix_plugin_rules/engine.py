"""Records in, alerts out: the tree, the windows, the detectors, the cooldowns."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from linnix_core import (
    Alert,
    CgroupSample,
    IncidentClass,
    Loss,
    ProcessEvent,
    ProcessSample,
    Record,
    Severity,
    SystemSample,
)
from linnix_plugin_rules.counting import (
    NEVER,
    CountDetector,
    Counter,
    EventDetector,
    ForkDetector,
    Kind,
    OomKill,
)
from linnix_plugin_rules.detector import Detector, Finding
from linnix_plugin_rules.memory import MemoryLeft, RssGrowth
from linnix_plugin_rules.pressure import Groups, PressureDetector
from linnix_plugin_rules.rounds import Machine, Round, RoundDetector
from linnix_plugin_rules.templates import Template
from linnix_plugin_rules.tree import MAX_PROCESSES, Child, Process, Tree
from linnix_plugin_rules.windows import EventWindow, Patience

__all__ = ["Engine", "Rule"]

#: Records come nearly in order; one that is older than this shows that the clock was set back.
CLOCK_SET_BACK_NS = 60_000_000_000

#: Samples of one moment are complete when a record is this much younger, at the latest.
ROUND_NS = 500_000_000

#: Pairs of rule and subject whose last alert is remembered.
MAX_COOLDOWNS = 8_192

#: Forks that are noted and not counted yet.
MAX_BIRTHS = 1024

#: Where fewer than these could make a rule look, as many are counted one by one.
HURRY = 32

#: Cgroups that are judged together, and victims of which a counter will tell once more.
MAX_GROUPS = 8_192


#: Execs, victims, and then ends: of what kinds each is, by whether the process may have failed,
#: and by whether it ran a program.
EVENTS: tuple[set[Kind], ...] = (
    {"exec"},
    {"oom"},
    {"exit"},
    {"exit", "failure"},
    {"exit", "job"},
    {"exit", "job", "failure"},
)


@attrs.frozen
class Rule:
    """One rule of the file."""

    name: str
    detector: Detector
    severity: Severity = "info"
    cooldown_s: float = 60
    class_: IncidentClass | None = None
    message: Template | None = None
    labels: Mapping[str, str] | None = None
    actions: tuple[Template, ...] = ()

    @property
    def cooldown_ns(self) -> int:
        """How long it stays silent about one subject; never shorter than a tenth of a second."""
        return int(max(self.cooldown_s, 0.1) * 1e9)


@attrs.frozen
class _Stream:
    """Rules that count the same events over the same time share a window."""

    window: EventWindow
    rules: list[tuple[Rule, CountDetector]] = attrs.field(factory=list)


#: What counts an event, and what then judges.
_Counters: TypeAlias = list[tuple[Counter, _Stream]]


class Engine:
    """Applies rules to records, one after the other; only their time and order matter.

    Where a batch ends makes no difference, so a replay raises the same alerts.
    """

    def __init__(self, rules: Sequence[Rule], tree: Tree | None = None) -> None:
        self.tree = Tree() if tree is None else tree
        self._rules: Sequence[Rule] = ()
        self._streams: dict[Hashable, _Stream] = {}
        #: Forks that are not counted yet, and how many it takes at least until a rule may look.
        self._births: list[Child] = []
        self._patience = Patience()
        self._start(0)
        self.use(rules)

    def _start(self, now_ns: int) -> None:
        """Begin with nothing counted; the tree stays as it is."""
        self._now_ns = now_ns
        self._round: dict[Process, ProcessSample] = {}
        self._round_ns = -1  # of the open round, else of the last one
        self._groups: dict[str, CgroupSample] = {}
        self._groups_ns = -1
        self._ends_ns = NEVER  # when the next of the two has to be judged
        self._latest: Round | None = None
        self._cooldowns: OrderedDict[tuple[str, Hashable], int] = OrderedDict()
        self._kills: OrderedDict[str, int] = OrderedDict()
        self._killed: dict[str, int] = {}
        self._left = MemoryLeft()
        self._host = Machine()
        self._births.clear()
        self._hurry = 0
        rules, self._rules, self._streams = self._rules, (), {}
        self.use(rules)

    def use(self, rules: Sequence[Rule]) -> None:
        """Go on with these rules; those that detect the same as before lose nothing."""
        if self._births:
            self._count_births()
        known = {rule.name: rule.detector for rule in self._rules}
        kept: list[Rule] = []
        for rule in rules:
            if known.get(rule.name) == rule.detector:
                kept.append(attrs.evolve(rule, detector=known[rule.name]))
            else:
                rule.detector.start()
                kept.append(rule)
        self._rules = kept
        before, self._streams = self._streams, {}
        self._round_rules: list[tuple[Rule, RoundDetector]] = []
        self._group_rules: list[tuple[Rule, PressureDetector]] = []
        for rule in kept:
            detector = rule.detector
            if isinstance(detector, CountDetector):
                stream = self._streams.get(detector.stream)
                if stream is None:
                    former = before.get(detector.stream)
                    until = detector.until if isinstance(detector, ForkDetector) else None
                    window = former.window if former else EventWindow(
                        detector.length_s, until, self._patience
                    )  # fmt: skip
                    stream = self._streams[detector.stream] = _Stream(window)
                stream.rules.append((rule, detector))
            elif isinstance(detector, RoundDetector):
                self._round_rules.append((rule, detector))
                if isinstance(detector, RssGrowth):
                    detector.left = self._left
            elif isinstance(detector, PressureDetector):
                self._group_rules.append((rule, detector))
        self._forks: list[tuple[EventWindow, Callable[..., Any] | None, _Stream]] = []
        counters: list[tuple[EventDetector, Counter, _Stream]] = []
        self._victims: list[tuple[OomKill, _Stream]] = []
        for stream in self._streams.values():
            counter, window = stream.rules[0][1], stream.window
            limits = [detector.limit for _, detector in stream.rules]
            window.limit, window.limits = min(limits), frozenset(map(math.ceil, limits))
            window.grouped = all(detector.scope != "host" for _, detector in stream.rules)
            window.rouse()
            if isinstance(counter, ForkDetector):
                self._forks.append((window, counter.grouping(), stream))
            elif isinstance(counter, EventDetector):
                counters.append((counter, counter.counter(window), stream))
            if isinstance(counter, OomKill):
                self._victims.append((counter, stream))
        self._execs, self._ooms, self._ends, self._failures, self._job_ends, self._job_failures = (
            [(count, stream) for detector, count, stream in counters if detector.kinds & kinds]
            for kinds in EVENTS
        )
        self._lean = all(detector.lean for detector, _, _ in counters if "job" in detector.kinds)
        self._be_patient()
        self._has_rounds = bool(self._round_rules or self._group_rules)

    def handle(self, records: Iterable[Record]) -> list[Alert]:
        """The alerts that these records give rise to, in order."""
        alerts: list[Alert] = []
        now_ns, ends_ns = self._now_ns, self._ends_ns
        births, patience = self._births, self._patience
        fork, exec_, exit_ = self.tree.fork, self.tree.exec, self.tree.exit
        for record in records:
            if type(record) is Loss:
                continue  # it is of the agent's time, not of what is played back
            ts_ns = record.ts_ns
            if ts_ns > now_ns:
                self._now_ns = now_ns = ts_ns
            elif ts_ns < now_ns - CLOCK_SET_BACK_NS:
                self._start(ts_ns)
                now_ns, ends_ns = ts_ns, self._ends_ns
            if ts_ns >= ends_ns:
                alerts += self._judge_round()
                alerts += self._judge_groups()
                ends_ns = self._ends_ns
            if type(record) is ProcessEvent:
                kind = record.kind
                if kind == "fork":
                    births.append(fork(record, now_ns))
                    if len(births) < patience.events and now_ns < patience.until_ns:
                        continue
                    found = self._count_births()
                elif kind == "exit":
                    ended = exit_(record, now_ns)
                    if ended is None:
                        continue
                    if record.exit_code == 0 and record.signal is None:
                        counters = self._job_ends if ended.exec_ns else self._ends
                    else:
                        counters = self._job_failures if ended.exec_ns else self._failures
                    found = self._count(counters, record, now_ns, ended) if counters else None
                    if type(ended) is Process:
                        ended.birth = None
                elif kind == "exec":
                    exec_(record, now_ns)
                    if not self._execs:
                        continue
                    found = self._count(self._execs, record, now_ns, self.tree.living(record))
                elif kind == "oom":
                    found = self._oom(record, now_ns)
                else:
                    self.tree.learn(record)
                    continue
            else:
                if type(record) is ProcessSample:
                    found = self._sample(record)
                elif type(record) is CgroupSample:
                    found = self._group(record)
                elif type(record) is SystemSample:
                    found = self._machine(record)
                else:
                    continue
                ends_ns = self._ends_ns
            if found is not None:
                alerts += found
        return alerts

    # --- events -----------------------------------------------------------------------

    def _count_births(self) -> list[Alert] | None:
        """Count the forks that were noted; most of them need not be taken back any more.

        Only the latest can be a reason to look: that is what there was patience for.
        """
        alerts: list[Alert] | None = None
        births = self._births
        now_ns = births[-1].now_ns
        for window, group_of, stream in self._forks:
            if window.add_births(births, group_of):
                alerts = self._look(stream, now_ns, alerts)
        births.clear()
        self._hurry -= 1
        if self._hurry <= 0:
            self._be_patient()
        return alerts

    def _be_patient(self) -> None:
        """Find out how many forks it takes at least until a rule has to look."""
        patience: float = MAX_BIRTHS
        until_ns = NEVER
        for window, group_of, stream in self._forks:
            if group_of is not None:
                patience = 0  # What decides is how things are at the fork.
                break
            for _, detector in stream.rules:
                events, quiet_ns = detector.patience(window)
                patience, until_ns = min(patience, events), min(until_ns, quiet_ns)
        # To find this out takes longer than to count a few.
        patience, self._hurry = (patience, 0) if patience > HURRY else (0, HURRY)
        self._patience.events, self._patience.until_ns = patience, until_ns

    def _oom(self, event: ProcessEvent, now_ns: int) -> list[Alert] | None:
        process = self.tree.living(event)
        self._note_victim(event.cgroup or process.cgroup)
        return self._count(self._ooms, event, now_ns, process)

    def _count(
        self,
        counters: _Counters,
        event: ProcessEvent,
        now_ns: int,
        one: Process | Child,
    ) -> list[Alert] | None:
        """Count what happened; of a child no process is made where nobody asks for so much."""
        if type(one) is Child and not (counters is self._job_ends and self._lean):
            one = self.tree.whole(one)
        alerts: list[Alert] | None = None
        for count, stream in counters:
            if count(event, now_ns, one):
                alerts = self._look(stream, now_ns, alerts)
        return alerts

    def _look(self, stream: _Stream, now_ns: int, alerts: list[Alert] | None = None) -> list[Alert]:
        """Judge a window that may hold enough, and add what comes of it."""
        alerts = [] if alerts is None else alerts
        window = stream.window
        for rule, detector in stream.rules:
            finding = detector.look(window, now_ns) if window.total >= detector.limit else None
            if finding is not None:
                alerts += self._alerts(rule, [finding], now_ns)
                detector.rest(window, self._silent_until(rule, finding))
        # Whose limit has yet to be reached looks when it is.
        if not window.grouped:
            above = [d.look_next for _, d in stream.rules if window.total >= d.limit]
            window.look_at = min((at for at, _ in above), default=NEVER)
            window.look_ns = min((ns for _, ns in above), default=NEVER)
        else:
            group = window.entry.group
            rests = [d.rests(group.key) for _, d in stream.rules if group.count >= d.limit]
            group.rest_ns = min(rests, default=NEVER)
        return alerts

    def _note_victim(self, cgroup: str | None) -> None:
        """Its cgroup counts it as well, maybe."""
        if self._victims and cgroup:
            self._kills[cgroup] = self._kills.get(cgroup, 0) + 1
            if len(self._kills) > MAX_GROUPS:
                self._kills.popitem(last=False)

    # --- samples ----------------------------------------------------------------------

    def _sample(self, sample: ProcessSample) -> list[Alert]:
        process = self.tree.sampled(sample)
        alerts: list[Alert] = []
        if not self._has_rounds:
            return alerts
        if self._round and sample.ts_ns > self._round_ns:
            alerts = self._judge_round()
        if not self._round:
            if sample.ts_ns <= self._round_ns:
                return alerts  # Too late: its round has been judged.
            self._round_ns = sample.ts_ns
            self._ends_ns = min(self._ends_ns, sample.ts_ns + ROUND_NS)
        if len(self._round) < MAX_PROCESSES:
            self._round[process] = sample
        return alerts

    def _group(self, sample: CgroupSample) -> list[Alert]:
        self._left.learn(sample)
        alerts: list[Alert] = []
        if self._groups and sample.ts_ns > self._groups_ns:
            alerts = self._judge_groups()
        if not self._groups:
            if sample.ts_ns <= self._groups_ns:
                return alerts
            self._groups_ns = sample.ts_ns
            self._ends_ns = min(self._ends_ns, sample.ts_ns + ROUND_NS)
        if len(self._groups) < MAX_GROUPS:
            self._groups[sample.cgroup] = sample
        return alerts

    def _machine(self, sample: SystemSample) -> list[Alert]:
        self._left.learn(sample)
        self._host.learn(sample)
        alerts: list[Alert] = []
        if sample.ts_ns == self._round_ns and self._round:
            # A collector that measures the machine in the same poll does so last.
            alerts = self._judge_round()
        return alerts + self._pressures(sample.ts_ns, {"/": sample})

    def _judge_round(self) -> list[Alert]:
        alerts: list[Alert] = []
        if not self._round:
            return alerts
        samples, self._round = Round(self._round_ns, self._round, self._host), {}
        self._ends_ns = self._groups_ns + ROUND_NS if self._groups else NEVER
        self._latest = samples if self._group_rules else None
        for rule, detector in self._round_rules:
            alerts += self._alerts(rule, detector.on_round(samples), samples.ts_ns)
        return alerts

    def _judge_groups(self) -> list[Alert]:
        if not self._groups:
            return []
        groups, self._groups = self._groups, {}
        self._ends_ns = self._round_ns + ROUND_NS if self._round else NEVER
        alerts = self._pressures(self._groups_ns, groups)
        return alerts + self._kills_of(self._groups_ns, groups)

    def _pressures(self, ts_ns: int, groups: Groups) -> list[Alert]:
        alerts: list[Alert] = []
        for rule, detector in self._group_rules:
            alerts += self._alerts(rule, detector.on_groups(ts_ns, groups, self._latest), ts_ns)
        return alerts

    def _kills_of(self, ts_ns: int, groups: Mapping[str, CgroupSample]) -> list[Alert]:
        """Victims that only the counters of their cgroups tell of."""
        alerts: list[Alert] = []
        if not self._victims:
            return alerts
        before, self._killed = self._killed, {
            name: sample.memory_events["oom_kill"]
            for name, sample in groups.items()
            if sample.memory_events and "oom_kill" in sample.memory_events
        }  # fmt: skip
        grown = {
            name: killed - before[name]
            for name, killed in self._killed.items()
            if name in before and killed > before[name]
        }
        for name, killed in grown.items():
            below = name.rstrip("/") + "/"
            if any(other.startswith(below) for other in grown if other != name):
                continue  # It counts what happened below it.
            told = min(killed, self._kills.get(name, 0))
            if told:
                self._kills[name] -= told
            if killed > told:
                for counter, stream in self._victims:
                    if counter.count_killed(stream.window, self._now_ns, name, killed - told):
                        alerts += self._look(stream, ts_ns)
        return alerts

    # --- alerts -----------------------------------------------------------------------

    def _alerts(self, rule: Rule, findings: Iterable[Finding], now_ns: int) -> Iterator[Alert]:
        for finding in findings:
            if now_ns < self._silent_until(rule, finding):
                continue
            cooldown = rule.name, finding.mark
            self._cooldowns[cooldown] = now_ns + rule.cooldown_ns
            self._cooldowns.move_to_end(cooldown)
            if len(self._cooldowns) > MAX_COOLDOWNS:
                self._cooldowns.popitem(last=False)
            process = finding.process
            yield Alert(
                rule=rule.name,
                severity=rule.severity,
                message=rule.message.render(finding) if rule.message else finding.message,
                class_=rule.class_,
                subject=finding.subject,
                evidence=finding.evidence,
                actions=tuple(action.render(finding) for action in rule.actions),
                labels=dict(rule.labels) if rule.labels else None,
                ts_ns=now_ns,
                boot_id="" if process is None else process.boot_id,
            )

    def _silent_until(self, rule: Rule, finding: Finding) -> int:
        return self._cooldowns.get((rule.name, finding.mark), 0)
