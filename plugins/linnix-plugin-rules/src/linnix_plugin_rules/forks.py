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

#: Trees that one rule can leave alone at a time.
MAX_RESTING = 4096


@attrs.define
class ForkDetector(Detector):
    """Forks in a window that reach a limit.

    It takes time to find the offender, so while the limit is exceeded there are rests.
    """

    #: Length of the window, in seconds, and the forks in it that it takes.
    length_s: float = attrs.field(init=False)
    limit: float = attrs.field(init=False)

    @abstractmethod
    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        """Judge the window after its latest fork, when its total has reached the limit."""

    @abstractmethod
    def rest(self, window: ForkWindow, until_ns: int) -> None:
        """Nobody wants to hear of the same process again until then."""

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

    While they stay above the limit it is looked for again when as many have happened anew.
    """

    class_ = "fork_storm"

    _look_at: int = attrs.field(default=0, init=False)
    _look_ns: int = attrs.field(default=0, init=False)

    def start(self) -> None:
        self._look_at, self._look_ns = 0, NEVER

    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        total = window.total
        if total < self.limit or (window.ever < self._look_at and now_ns < self._look_ns):
            return None
        self._look_at, self._look_ns = window.ever + total, NEVER
        message = self._message(total)
        tree = window.heaviest_tree()
        if tree is None:
            return Finding(None, message, self._evidence(total))
        by_offender = total * tree.by_offender // window.sampled
        return self._finding(message, total, tree.offender, by_offender)

    def rest(self, window: ForkWindow, until_ns: int) -> None:
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

    #: When to look again at trees that are above the limit, by their origin.
    _look_ns: OrderedDict[Process, int] = attrs.field(factory=OrderedDict, init=False)

    def __attrs_post_init__(self) -> None:
        self.length_s, self.limit = self.window_seconds, self.threshold

    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""
        self._look_ns.clear()

    def look(self, window: ForkWindow, now_ns: int) -> Finding | None:
        """Judge the tree that the latest fork belongs to."""
        origin = window.origin
        if origin is None or window.by_origin[origin] < self.threshold:
            return None
        if now_ns < self._look_ns.get(origin, now_ns):
            return None
        tree = window.tree_of(origin)
        if tree is None:
            return None
        forks = window.by_origin[origin]
        message = f"runaway tree: {forks} forks in {self.window_seconds:g} s"
        return self._finding(message, forks, tree.offender, tree.by_offender)

    def rest(self, window: ForkWindow, until_ns: int) -> None:
        """Leave this tree alone for now."""
        if window.origin is not None:
            self._look_ns[window.origin] = until_ns
            if len(self._look_ns) > MAX_RESTING:
                self._look_ns.popitem(last=False)
