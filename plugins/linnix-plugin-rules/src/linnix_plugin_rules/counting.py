"""Detectors that count what happens: forks, execs, short jobs, crashes, victims."""

from __future__ import annotations

import math
import statistics
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from linnix_core import Evidence, ProcessEvent, printable
from linnix_plugin_rules.detector import (
    Detector,
    Finding,
    Scope,
    key,
    number,
    one_of,
    percent,
    seconds,
    whole_number,
)
from linnix_plugin_rules.matching import Regex, command_line, regex
from linnix_plugin_rules.tree import Process, Subtree
from linnix_plugin_rules.windows import NOT_CHOSEN, EventWindow

__all__ = [
    "CountDetector",
    "Counter",
    "CrashLoop",
    "EventDetector",
    "ExecRate",
    "ForkBurst",
    "ForkDetector",
    "ForksPerSec",
    "Kind",
    "OomKill",
    "RunawayTree",
    "ShortJobFlood",
]

#: Takes in an event: when, and whom it happened to. Says whether it is worth a look.
#: A child it is only where the detector is ``lean``.
Counter: TypeAlias = Callable[[ProcessEvent, int, Any], bool]

#: What can be counted besides forks; of exits all, those of processes that ran a program, and
#: those that are not known to be in order.
Kind: TypeAlias = Literal["exec", "exit", "job", "failure", "oom"]

#: Later than the time of any record.
NEVER = 2**63

#: Sources that one rule can leave alone at a time.
MAX_RESTS = 4096

#: Events above the limit that are looked at as a reason not to count one by one.
MAX_SPARE = 256

#: The latest lifetimes that a median is taken of, and the time that they may be old.
MAX_LIFETIMES = 1024
MINUTE_NS = 60_000_000_000

#: How often it is taken while there are enough execs.
LOOK_EVERY_NS = 250_000_000

#: Signals by which processes are stopped in order: HUP INT KILL PIPE ALRM TERM. The OOM killer
#: also sends KILL, and is an event of its own.
ORDERLY_SIGNALS = frozenset({1, 2, 9, 13, 14, 15})


@attrs.define(kw_only=True)
class CountDetector(Detector):
    """Events in a window that reach a limit: on the host, or those of one group.

    It takes time to find the offender. So while one source stays above the limit, it is
    looked for once in a cooldown; and when it rises above it once more, if at least half as
    many as it takes are new. On the host it is also looked for when as many have happened
    anew as the window holds.
    """

    #: The name of the evidence, and its unit.
    noun: ClassVar[str]

    #: Length of the window, in seconds, and the events in it that it takes.
    length_s: float = attrs.field(init=False, eq=False)
    limit: float = attrs.field(init=False, eq=False)

    _source: Any = attrs.field(default=None, init=False, eq=False)
    #: By source until when, and until which event ever, it is left alone.
    _rests: OrderedDict[Any, tuple[int, int]] = attrs.field(
        factory=OrderedDict, init=False, eq=False, repr=False
    )
    #: On the host: look again at this event ever, or at this time.
    _look_at: int = attrs.field(default=0, init=False, eq=False)
    _look_ns: int = attrs.field(default=NEVER, init=False, eq=False)
    _risen_at: int = attrs.field(default=0, init=False, eq=False)

    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""
        self._rests.clear()
        self._look_at, self._look_ns, self._risen_at = 0, NEVER, 0

    @property
    def stream(self) -> Hashable:
        """Detectors that count the same, over the same time, have this in common."""
        return type(self).__name__, self.length_s, self._grouping(), self.selection

    def _grouping(self) -> Scope:
        return "subtree" if self.scope == "host" else self.scope

    def rests(self, group: Hashable) -> int:
        """Until when nobody wants to hear of a group, unless it rises above the limit anew."""
        return self._rests.get(group, (0, 0))[0]

    @property
    def look_next(self) -> tuple[int, int]:
        """While the host stays above the limit: look at this event ever, or at this time."""
        return (self._look_at, self._look_ns) if self.scope == "host" else (0, 0)

    def patience(self, window: EventWindow) -> tuple[float, int]:
        """For how many more events, and until when, there is no need to look."""
        if self.scope != "host":
            most = window.most if window.most < self.limit / 2 else window.count_most()
            return self.limit - most, NEVER
        if window.total < self.limit:
            return self.limit - window.total, NEVER
        events, until_ns = self._look_at - window.ever, self._look_ns
        risen_in = self._risen_at - window.ever
        if risen_in < MAX_SPARE and window.total - self.limit > 2 * max(risen_in, 1):
            # There are so many that it takes long until so few are left that it could rise.
            risen_in = min(int(window.total - self.limit) // 2, MAX_SPARE)
            until_ns = min(until_ns, window.kept_until(self.limit + 1 + risen_in))
        return min(events, risen_in), until_ns

    def look(self, window: EventWindow, now_ns: int) -> Finding | None:
        """Judge the window after its latest event, when its total has reached the limit."""
        if self.scope == "host":
            return self._look_host(window, now_ns)
        return self._look_group(window, now_ns)

    def _is_kind(self, window: EventWindow, now_ns: int) -> bool:
        """Whether what happened is of the kind that the rule means; else it rests for a moment."""
        return True

    def rest(self, window: EventWindow, until_ns: int) -> None:
        """Nobody wants to hear of the latest finding again until then."""
        self._rests[self._source] = until_ns, window.ever + int(self.limit) // 2
        self._rests.move_to_end(self._source)
        if len(self._rests) > MAX_RESTS:
            self._rests.popitem(last=False)
        self._look_ns = until_ns

    def _look_host(self, window: EventWindow, now_ns: int) -> Finding | None:
        total, ever = window.total, window.ever
        risen = total < self.limit + 1 and ever >= self._risen_at
        if total < self.limit or not (risen or ever >= self._look_at or now_ns >= self._look_ns):
            return None
        self._look_at, self._risen_at = ever + total, ever + int(self.limit) // 2
        self._source = window.main_origin()
        self._look_ns, _ = self._rests.get(self._source, (0, 0))
        if not risen and now_ns < self._look_ns:
            return None
        if not self._is_kind(window, now_ns):
            self.rest(window, now_ns + LOOK_EVERY_NS)
            return None
        tree = window.heaviest_tree()
        if tree is not None and window.sampled > 0:
            share = tree.by_offender / window.sampled
            tree = attrs.evolve(tree, total=total, by_offender=int(total * share))
        return self._finding(window, total, tree)

    def _look_group(self, window: EventWindow, now_ns: int) -> Finding | None:
        counted = window.entry.group
        self._source = group = counted.key
        events = counted.count
        if group is None or events < self.limit:
            return None
        until_ns, until_event = self._rests.get(group, (0, 0))
        risen = events < self.limit + 1 and window.ever >= until_event
        if now_ns < until_ns and not risen:
            return None
        if not self._is_kind(window, now_ns):
            self.rest(window, now_ns + LOOK_EVERY_NS)
            return None
        return self._finding(window, events, window.tree_of(group))

    def _finding(self, window: EventWindow, events: int, tree: Subtree | None) -> Finding | None:
        evidence = (
            Evidence(self.noun, events, self.noun),
            Evidence("threshold", self.limit, self.noun),
            Evidence("window", self.length_s, "s"),
        )
        message = self._message(events)
        group = self._source if self.scope in ("cgroup", "exe") else None
        if group is not None:
            message += f" {'in cgroup' if self.scope == 'cgroup' else 'of'} {_shown(group)}"
        cgroup = group if self.scope == "cgroup" else None
        if tree is None:
            return Finding(None, message, evidence, about=group, cgroup=cgroup)
        share = 100 * int(tree.by_offender) // max(int(tree.total), 1)
        message += f" by {tree.offender}" if share == 100 else f", {share} % by {tree.offender}"
        share_of_it = Evidence("offender_share", share, "%")
        return Finding(tree.offender, message, (*evidence, share_of_it), about=group)

    def _message(self, events: int) -> str:
        """What happened, without who did it."""
        return f"{self.title}: {events} {self.noun.replace('_', ' ')} in {self.length_s:g} s"

    #: How the message begins.
    title: ClassVar[str]


def _shown(group: Hashable) -> str:
    return printable(str(group), limit=120)


# --- forks ----------------------------------------------------------------------------


@attrs.define(kw_only=True)
class ForkDetector(CountDetector):
    """``counts`` leaves out forks whose child starts a program, or those that have ended.

    With ``bare_pct`` at least so many percent of what the offender forked lately start none.
    """

    noun = "forks"
    scopes: ClassVar[tuple[Scope, ...]] = ("host", "process", "subtree", "cgroup")

    counts: Literal["all", "bare", "living"] = key(one_of("all", "bare", "living"), "all")
    bare_pct: float = key(percent, 0)

    @property
    def stream(self) -> Hashable:
        """What it counts."""
        return "fork", self.counts, self.length_s, self._grouping(), self.selection

    @property
    def until(self) -> Literal["exec", "exit"] | None:
        """What of the child takes back that its fork was counted."""
        if self.counts == "all":
            return None
        return "exec" if self.counts == "bare" else "exit"

    def look(self, window: EventWindow, now_ns: int) -> Finding | None:
        """Judge the window; a script that also runs programs is left alone for a moment."""
        finding = super().look(window, now_ns)
        if finding is None or self._is_bare(window, finding.process, now_ns):
            return finding
        self.rest(window, now_ns + LOOK_EVERY_NS)
        return None

    def _is_bare(self, window: EventWindow, top: Process | None, now_ns: int) -> bool:
        if not self.bare_pct or top is None:
            return True
        counts = window.counts_below(top)
        bare = sum(counts.values())
        started = sum(process.started_lately(now_ns) for process in counts)
        return 100 * bare >= self.bare_pct * (bare + started)

    def grouping(self) -> Callable[[Process | None, Process | None], Any] | None:
        """The group of a fork by its parent and the tree that grew; None if that is the tree."""
        if not self.choosy and self.scope in ("host", "subtree"):
            return None
        return self._group_of

    def _group_of(self, parent: Process | None, origin: Process | None) -> Any:
        if not self.chooses(parent):
            return NOT_CHOSEN
        if self.scope == "process":
            return parent
        if self.scope == "cgroup":
            return None if parent is None else parent.cgroup
        return origin


@attrs.define(kw_only=True)
class ForkBurst(ForkDetector):
    """At least ``threshold`` forks within ``window_seconds``."""

    class_ = "fork_storm"
    title = "fork burst"

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.window_seconds, self.threshold


@attrs.define(kw_only=True)
class ForksPerSec(ForkDetector):
    """At least ``threshold`` forks a second, on average over ``duration`` seconds.

    At least ``threshold`` forks it must be, however short the duration.
    """

    class_ = "fork_storm"

    threshold: int = key(whole_number)
    duration: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.duration, self.threshold * max(self.duration, 1)

    def _message(self, events: int) -> str:
        return f"fork rate: {events / self.duration:.0f} forks/s over {self.duration:g} s"


@attrs.define(kw_only=True)
class RunawayTree(ForkDetector):
    """At least ``threshold`` forks within ``window_seconds`` by which one tree grew."""

    class_ = "runaway_tree"
    title = "runaway tree"
    scopes = ("subtree", "process", "cgroup")

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.window_seconds, self.threshold


# --- programs -------------------------------------------------------------------------


@attrs.define(kw_only=True)
class EventDetector(CountDetector):
    """Counts execs, exits or victims."""

    #: The kinds of events that it is about.
    kinds: set[Kind] = attrs.field(init=False, eq=False)

    @property
    def lean(self) -> bool:
        """Whether it asks a process for nothing that a `Child` has not."""
        return False

    @abstractmethod
    def counter(self, window: EventWindow) -> Counter:
        """What takes in the events."""


@attrs.define(kw_only=True)
class _Programs(EventDetector):
    """Counts for who started the program: its parent, or itself if it was one before."""

    scopes = ("host", "process", "subtree", "cgroup", "exe")

    def group_of(self, one: Any, starter: Process) -> Any:
        """What a program that somebody started counts for."""
        if self.scope == "exe":
            return one.image.exe or one.image.comm
        if self.scope == "process":
            return starter
        if self.scope == "cgroup":
            return one.image.cgroup
        return one.origin or starter

    def adder(self, window: EventWindow) -> Counter:
        """What counts a program; filters are about itself."""
        add, group_of, choosy = window.add, self.group_of, self.choosy

        def count(event: ProcessEvent, now_ns: int, one: Any) -> bool:
            if choosy and not self.chooses(one):
                return False
            starter = one if one.again else one.forker or one
            return add(now_ns, starter, group_of(one, starter))

        return count


@attrs.define(kw_only=True)
class ShortJobFlood(_Programs):
    """At least ``threshold`` programs within ``window_seconds`` that ended soon after an exec.

    With ``repeated_pct`` at least so many percent of them had a command line that came again:
    work that gets on has other arguments for each piece.
    """

    noun = "short_jobs"
    title = "flood of short jobs"
    class_ = "short_job_flood"

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)
    max_exec_duration_ms: float = key(
        lambda value: number(value, 1, 3_600_000, "milliseconds from 1 to 3600000"), 1000
    )
    repeated_pct: float = key(percent, 0)

    #: The share of what was repeated, by group, and when it was counted.
    _repeated: dict[Hashable, float] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    _counted_ns: int = attrs.field(default=-NEVER, init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self.kinds = {"job"}
        self.length_s, self.limit = self.window_seconds, self.threshold

    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""
        super().start()
        self._counted_ns = -NEVER

    @property
    def stream(self) -> Hashable:
        """What it counts."""
        return super().stream, self.max_exec_duration_ms

    @property
    def lean(self) -> bool:
        """A program, when it began and who started it is all that it takes."""
        return not self.choosy

    def counter(self, window: EventWindow) -> Counter:
        """What takes in the ends."""
        longest_ns, choosy, by_exe = (
            self.max_exec_duration_ms * 1e6,
            self.choosy,
            self.scope == "exe",
        )
        add, group_of = window.add, self.group_of

        def count(event: ProcessEvent, now_ns: int, one: Any) -> bool:
            lasted_ns = event.ts_ns - one.exec_ns
            if event.source == "polled":
                # When it began is known better than when it was seen.
                lasted_ns = event.duration_ns or lasted_ns
            if lasted_ns > longest_ns or (choosy and not self.chooses(one)):
                return False
            starter = one if one.again else one.forker or one
            image = one.image
            # By executable as in the rules that are shipped: without another call.
            group = image.exe or image.comm if by_exe else group_of(one, starter)
            worth = add(now_ns, starter, group)
            # Not the arguments: they can be long, and many.
            window.entry.command = hash(image.args)
            return worth

        return count

    def _is_kind(self, window: EventWindow, now_ns: int) -> bool:
        if not self.repeated_pct:
            return True
        if now_ns >= self._counted_ns + LOOK_EVERY_NS:
            self._counted_ns, self._repeated = now_ns, window.repeated()
        group = None if self.scope == "host" else window.entry.group.key
        return 100 * self._repeated.get(group, 0) >= self.repeated_pct

    def _message(self, events: int) -> str:
        longest = f"{self.max_exec_duration_ms:g} ms"
        return f"{self.title}: {events} of at most {longest} in {self.window_seconds:g} s"


@attrs.define(kw_only=True)
class ExecRate(_Programs):
    """At least ``rate_per_min`` programs in a minute whose command line matches ``regex``.

    Those that ended in that minute lasted at most ``median_lifetime`` seconds, half of them.
    """

    noun = "execs"
    title = "rate of execs"
    class_ = "short_job_flood"

    regex: Regex = key(regex)  # noqa: RUF009
    rate_per_min: int = key(whole_number)
    median_lifetime: float = key(lambda value: number(value, 0, 86_400, "seconds from 0 to 86400"))

    _lifetimes: deque[tuple[int, int]] = attrs.field(
        factory=lambda: deque(maxlen=MAX_LIFETIMES), init=False, eq=False, repr=False
    )
    #: When the median was taken last.
    _median_ns: int = attrs.field(default=0, init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self.kinds, self.length_s, self.limit = {"exec", "job"}, 60, self.rate_per_min

    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""
        super().start()
        self._lifetimes.clear()
        self._median_ns = 0

    @property
    def stream(self) -> Hashable:
        """What it counts."""
        return super().stream, self.regex, id(self)  # The lifetimes are its own.

    def counter(self, window: EventWindow) -> Counter:
        """What takes in beginnings and ends."""
        add, search = self.adder(window), self.regex.search

        def count(event: ProcessEvent, now_ns: int, process: Process) -> bool:
            if not search(command_line(process)):
                return False
            if event.kind == "exec":
                return add(event, now_ns, process)
            if self.chooses(process):
                self._lifetimes.append((now_ns, event.ts_ns - process.exec_ns))
            return False

        return count

    def rests(self, group: Hashable) -> int:
        """Nobody rests: each look may be the one at which the jobs have become brief."""
        return 0

    def look(self, window: EventWindow, now_ns: int) -> Finding | None:
        """Judge the window, when the jobs of the last minute were brief."""
        if now_ns < self._median_ns + LOOK_EVERY_NS:
            return None
        self._median_ns = now_ns
        lifetimes = [ns for at_ns, ns in self._lifetimes if now_ns - at_ns <= MINUTE_NS]
        median_s = statistics.median(lifetimes) / 1e9 if lifetimes else math.inf
        finding = super().look(window, now_ns) if median_s <= self.median_lifetime else None
        if finding is None:
            return None
        more = (
            Evidence("median_lifetime", round(median_s, 3), "s"),
            Evidence("median_lifetime_limit", self.median_lifetime, "s"),
        )
        return attrs.evolve(finding, evidence=(*finding.evidence, *more))


@attrs.define(kw_only=True)
class CrashLoop(EventDetector):
    """One executable that failed ``threshold`` times within ``window_seconds``."""

    noun = "crashes"
    title = "crash loop"
    scopes = ("exe", "cgroup")

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)
    ended_by: Literal["failure", "signal", "any"] = key(
        one_of("failure", "signal", "any"), "failure"
    )

    def __attrs_post_init__(self) -> None:
        self.kinds = {"exit" if self.ended_by == "any" else "failure"}
        self.length_s, self.limit = self.window_seconds, self.threshold

    @property
    def stream(self) -> Hashable:
        """What it counts."""
        return super().stream, self.ended_by

    def counter(self, window: EventWindow) -> Counter:
        """What takes in the ends."""
        failed, by_cgroup = self._failed, self.scope == "cgroup"

        def count(event: ProcessEvent, now_ns: int, process: Process) -> bool:
            if not failed(event) or not self.chooses(process):
                return False
            group = process.cgroup if by_cgroup else process.exe or process.comm
            return window.add(now_ns, process, group or None)

        return count

    def _failed(self, event: ProcessEvent) -> bool:
        if self.ended_by == "any" or (event.exit_code is None and event.signal is None):
            return self.ended_by != "signal"  # A poll does not tell how it ended.
        if event.signal is not None:
            return event.signal not in ORDERLY_SIGNALS
        return self.ended_by == "failure" and bool(event.exit_code)

    def _finding(self, window: EventWindow, events: int, tree: Subtree | None) -> Finding | None:
        # The latest to crash is the executable's; the tree would be that of who restarts it.
        if window.entry.actor is not None:
            tree = Subtree(events, window.entry.actor, events)
        return super()._finding(window, events, tree)


@attrs.define(kw_only=True)
class OomKill(EventDetector):
    """The kernel killed ``threshold`` processes for want of memory within ``window_seconds``."""

    noun = "oom_kills"
    title = "out of memory"
    class_ = "oom_risk"
    scopes = ("cgroup", "host")

    threshold: int = key(whole_number, 1)
    window_seconds: float = key(seconds, 60)

    def __attrs_post_init__(self) -> None:
        self.kinds = {"oom"}
        self.length_s, self.limit = self.window_seconds, self.threshold

    def counter(self, window: EventWindow) -> Counter:
        """What takes in the victims."""
        by_cgroup = self.scope == "cgroup"

        def count(event: ProcessEvent, now_ns: int, process: Process) -> bool:
            if not self.chooses(process):
                return False
            group = (event.cgroup or process.cgroup or "") if by_cgroup else process
            return window.add(now_ns, process, group)

        return count

    def count_killed(self, window: EventWindow, now_ns: int, cgroup: str, killed: int) -> bool:
        """Take in what only the counter of a cgroup tells."""
        if not self.selection.has_group(cgroup):
            return False
        return window.add(now_ns, None, cgroup if self.scope == "cgroup" else None, killed)

    def _finding(self, window: EventWindow, events: int, tree: Subtree | None) -> Finding | None:
        if window.entry.actor is not None:
            tree = Subtree(events, window.entry.actor, events)
        return super()._finding(window, events, tree)
