"""Detectors that count forks."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict

import attrs

from linnix_core import Evidence
from linnix_plugin_rules.detector import Detector, Finding, key, seconds, whole_number
from linnix_plugin_rules.tree import Process
from linnix_plugin_rules.windows import ForkWindow

__all__ = ["ForkBurst", "ForkDetector", "ForksPerSec", "RunawayTree"]

#: Later than the time of any record.
NEVER = 2**63

#: Sources that one rule can leave alone at a time.
MAX_RESTS = 4096


@attrs.define
class ForkDetector(Detector):
    """Forks in a window that reach a limit.

    It takes time to find the offender. So while the forks of one source stay above the
    limit, it is looked for once in a cooldown; and when they rise above it once more, if at
    least half as many as it takes are new.
    """

    #: Length of the window, in seconds, and the forks in it that it takes.
    length_s: float = attrs.field(init=False)
    limit: float = attrs.field(init=False)

    _source: Process | None = attrs.field(default=None, init=False)
    #: By source until when, and until which fork ever, it is left alone.
    _rests: OrderedDict[Process | None, tuple[int, int]] = attrs.field(
        factory=OrderedDict, init=False
    )

    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""
        self._rests.clear()

    @abstractmethod
    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        """Judge the window after its latest fork, when its total has reached the limit."""

    def rest(self, window: ForkWindow, until_ns: int) -> None:
        """Nobody wants to hear of the latest finding again until then."""
        self._rests[self._source] = until_ns, window.ever + int(self.limit) // 2
        self._rests.move_to_end(self._source)
        if len(self._rests) > MAX_RESTS:
            self._rests.popitem(last=False)

    def _finding(self, message: str, forks: int, offender: Process, by_offender: int) -> Finding:
        share = 100 * by_offender // forks
        by = f" by {offender}" if share == 100 else f", {share} % by {offender}"
        evidence = (*self._evidence(forks), Evidence("offender_share", share, "%"))
        return Finding(offender, message + by, evidence)

    def _evidence(self, forks: int) -> tuple[Evidence, ...]:
        return (
            Evidence("forks", forks, "forks"),
            Evidence("threshold", self.limit, "forks"),
            Evidence("window", self.length_s, "s"),
        )


@attrs.define
class _HostForks(ForkDetector):
    """Forks on the whole host; the heaviest tree below init is to blame.

    While they stay above the limit it is looked at again when as many have happened anew.
    """

    class_ = "fork_storm"

    #: Look again at this fork ever, or at this time.
    _look_at: int = attrs.field(default=0, init=False)
    _look_ns: int = attrs.field(default=NEVER, init=False)
    _risen_at: int = attrs.field(default=0, init=False)

    def start(self) -> None:
        super().start()
        self._look_at, self._look_ns, self._risen_at = 0, NEVER, 0

    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        total, ever = window.total, window.ever
        risen = total < self.limit + 1 and ever >= self._risen_at
        if total < self.limit or not (risen or ever >= self._look_at or now_ns >= self._look_ns):
            return None
        self._look_at, self._risen_at = ever + total, ever + int(self.limit) // 2
        self._source = window.main_origin()
        self._look_ns, _ = self._rests.get(self._source, (0, 0))
        if not risen and now_ns < self._look_ns:
            return None
        message = self._message(total)
        tree = window.heaviest_tree()
        if tree is None:
            return Finding(None, message, self._evidence(total))
        by_offender = total * tree.by_offender // window.sampled
        return self._finding(message, total, tree.offender, by_offender)

    def rest(self, window: ForkWindow, until_ns: int) -> None:
        super().rest(window, until_ns)
        self._look_ns = until_ns

    @abstractmethod
    def _message(self, forks: int) -> str:
        """What happened, without who did it."""


@attrs.define(kw_only=True)
class ForkBurst(_HostForks):
    """At least ``threshold`` forks within ``window_seconds``."""

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.window_seconds, self.threshold

    def _message(self, forks: int) -> str:
        return f"fork burst: {forks} forks in {self.window_seconds:g} s"


@attrs.define(kw_only=True)
class ForksPerSec(_HostForks):
    """At least ``threshold`` forks a second, on average over ``duration`` seconds.

    At least ``threshold`` forks it must be, however short the duration.
    """

    threshold: int = key(whole_number)
    duration: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.duration, self.threshold * max(self.duration, 1)

    def _message(self, forks: int) -> str:
        return f"fork rate: {forks / self.duration:.0f} forks/s over {self.duration:g} s"


@attrs.define(kw_only=True)
class RunawayTree(ForkDetector):
    """At least ``threshold`` forks within ``window_seconds`` by which one tree grew."""

    class_ = "runaway_tree"

    threshold: int = key(whole_number)
    window_seconds: float = key(seconds)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.window_seconds, self.threshold

    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        """Judge the tree that the latest fork belongs to."""
        self._source = origin = window.origin
        if origin is None:
            return None
        forks = window.by_origin[origin]
        if forks < self.threshold:
            return None
        until_ns, until_fork = self._rests.get(origin, (0, 0))
        risen = forks == self.threshold and window.ever >= until_fork
        if now_ns < until_ns and not risen:
            return None
        tree = window.tree_of(origin)
        message = f"runaway tree: {forks} forks in {self.window_seconds:g} s"
        return self._finding(message, forks, tree.offender, tree.by_offender)
