"""The collector: loads the programs, reads the ring, takes snapshots, and gives account."""

from __future__ import annotations

import contextlib
import errno
import math
import select
import time
from collections.abc import Mapping
from threading import Event
from typing import Any

import attrs

from linnix_core import (
    Context,
    Duration,
    Health,
    PluginUnavailable,
    Record,
    Sink,
    Size,
    hookimpl,
)
from linnix_plugin_ebpf import requirements
from linnix_plugin_ebpf.balance import cut
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.events import Decoder, boot_offset_ns
from linnix_plugin_ebpf.libbpf import BpfError, Libbpf, LibbpfMissing
from linnix_plugin_ebpf.programs import SNAPSHOT, ObjectChanged, Programs, Totals, read_object
from linnix_plugin_ebpf.snapshots import KernelSnapshots, ProcSnapshots, Snapshots, seen_now
from linnix_plugin_psutil import LinuxSystemReader

__all__ = ["EbpfCollector", "EbpfConfig"]

#: Records that are decoded and handed over together.
CHUNK = 2048

#: Seconds between two looks into the ring while it fills, at most. Each look wakes every thread
#: up to the handlers, for which a processor that did something else meanwhile takes as long as
#: for dozens of records: the more come of one look, the less each costs.
LOOK_EVERY_S = 0.1

#: Bytes of a look that are enough, and looks in the time in which the ring would fill up.
LOOK_BYTES = 128 << 10
LOOKS_OF_A_RING = 8

#: Records of one look up to which the next one waits until something comes.
FEW = 4

#: Seconds to sleep at most when nothing comes; a stop is noticed after that.
SLEEP_S = 0.5

#: Seconds between two accounts.
ACCOUNT_EVERY_S = 1.0

#: Seconds between two questions what the programs missed: it takes a system call for each.
MISSED_EVERY_S = 10.0

#: Seconds for the programs that had begun to run when they were detached.
DRAIN_S = 1.0


def _ring_size(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 4096 <= value <= 1 << 30:
        raise ValueError(f"{attribute.name} must be between 4KiB and 1GiB")


def _not_negative(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must not be negative")


@attrs.frozen
class EbpfConfig:
    """How much may wait, how much one group may say, and how often everyone is measured."""

    ring_size: Size = attrs.field(
        default=Size(4 << 20),
        validator=_ring_size,
        metadata={"help": "events that may wait in the kernel; becomes a power of two"},
    )
    cgroup_rate: int = attrs.field(
        default=50_000,
        validator=_not_negative,
        metadata={"help": "events per second of one cgroup, more are throttled; 0: no limit"},
    )
    switches: bool = attrs.field(
        default=True,
        metadata={
            "help": "time every switch of a processor, so that CPU time of short lives is exact"
        },
    )
    sample_interval: Duration = attrs.field(
        default=Duration(1.0),
        validator=_not_negative,
        metadata={"help": "between two measurements of every process; 0: none"},
    )


@attrs.frozen
class _Account:
    """What was stated last: see `linnix_core.Sink.balance`."""

    emitted: int = 0
    received: int = 0
    lost: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def balances(self) -> bool:
        return self.emitted == self.received + sum(self.lost.values())


def pause_s(read: int, within_s: float, size: int) -> float:
    """Seconds until the next look into a ring of ``size`` bytes, as fast as it fills now.

    >>> pause_s(100, 0.1, 4096), pause_s(1024, 0.1, 4096)
    (0.1, 0.05)
    """
    enough = min(LOOK_BYTES, size // LOOKS_OF_A_RING)
    return min(LOOK_EVERY_S, enough * within_s / read) if read else LOOK_EVERY_S


class EbpfCollector:
    """Follow every fork, exec and exit through eBPF, and measure every process."""

    Config = EbpfConfig

    def __init__(self, config: EbpfConfig, context: Context) -> None:
        self._config = config
        self._log = context.logger
        self._programs: Programs | None = None
        #: What no sink has taken yet: it stays here when one fails.
        self._unsent: list[Record] = []
        self._received = 0
        self._accounted: Totals | None = None
        self._given = _Account()
        self._missed, self._missed_due = 0, 0.0
        self._lost_at_snapshot = 0
        self._lost_at_health: dict[str, int] = {}
        self._proc_only = ""
        self._system = LinuxSystemReader()

    # --- starting and stopping ----------------------------------------------------------

    @hookimpl
    def linnix_start(self) -> None:
        """Load and attach, and find out who is there already."""
        requirements.check()
        try:
            programs = Programs(
                Libbpf(),
                read_object(),
                ring_size=self._config.ring_size,
                switches=self._config.switches,
            )
        except LibbpfMissing as error:
            raise PluginUnavailable(
                f"libbpf is missing: {error}",
                hint="apt install libbpf1, dnf install libbpf, or apk add libbpf",
            ) from error
        except ObjectChanged as error:
            raise PluginUnavailable(
                str(error), hint="pip install --force-reinstall linnix-plugin-ebpf"
            ) from error
        except BpfError as error:
            raise self._refused("loaded", error) from error
        except OSError as error:
            raise PluginUnavailable(
                f"what the programs write cannot be opened: {error}",
                hint="make ring_size smaller, or raise the limits of this process",
            ) from error
        self._programs = programs
        self._cgroups = CgroupPaths(
            programs.v1_subsystems, of_the_host=requirements.in_host_cgroups()
        )
        self._decoder = Decoder(self._cgroups)
        rate = self._config.cgroup_rate
        programs.configure(
            cost_ns=1_000_000_000 // rate if rate else 0,
            burst_ns=1_000_000_000,
            v1_subsystem=self._cgroups.subsystem,
            v1_hierarchy=self._cgroups.hierarchy,
        )
        self._epoll = select.epoll()
        self._epoll.register(programs.ring_fd, select.EPOLLIN)
        try:
            programs.attach()
        except BpfError as error:
            raise self._refused("attached", error) from error
        # Who was there before is looked for after that, so that nobody falls in between.
        self._unsent = seen_now(self._cgroups)
        self._snapshots = self._choose_snapshots(programs)

    def _refused(self, what: str, error: BpfError) -> PluginUnavailable:
        for line in error.log:
            self._log.info("%s", line)
        return PluginUnavailable(
            f"the programs cannot be {what}: {error}",
            hint=requirements.why_forbidden()
            if error.code == errno.EPERM
            else "linnix -v doctor shows what the kernel said",
        )

    def _choose_snapshots(self, programs: Programs) -> Snapshots:
        if programs.snapshots:
            try:
                return KernelSnapshots(programs, self._cgroups, self._decoder)
            except (BpfError, OSError) as error:
                self._proc_only = str(error)
        else:
            self._proc_only = "the kernel refused the program"
        return ProcSnapshots(self._cgroups)

    @hookimpl
    def linnix_stop(self) -> None:
        """Give everything back to the kernel."""
        programs, self._programs = self._programs, None
        self._system.close()
        if programs is not None:
            self._epoll.close()
            programs.close()

    # --- collecting -----------------------------------------------------------------------

    @hookimpl
    def linnix_collect(self, sink: Sink, stop: Event) -> None:
        """Read until the stop; then detach, read what is left, and give the last account."""
        programs = self._programs
        assert programs is not None
        self._emit(sink, [])
        interval_s = self._config.sample_interval
        account_due = snapshot_due = looked = time.monotonic()
        position = programs.ring.consumed
        while not stop.is_set():
            came = self._drain(programs, sink)
            now = time.monotonic()
            pause = pause_s(programs.ring.consumed - position, now - looked, programs.ring.size)
            looked, position = now, programs.ring.consumed
            if now >= account_due and self._account(programs, sink):
                # The same beat as that of the snapshots, so that both need one awakening.
                account_due = max(account_due + ACCOUNT_EVERY_S, now)
                # Compared with the start, /proc would tell again what the kernel told.
                if not interval_s and not self._proc_only and self._lost_since_snapshot():
                    self._snapshot(programs, sink)
            if interval_s and now >= snapshot_due:
                self._snapshot(programs, sink)
                # Keep the beat, but do not make up for beats that were missed.
                snapshot_due = max(snapshot_due + interval_s, now)
            if came <= FEW:
                due = min(account_due, snapshot_due) if interval_s else account_due
                came = self._sleep(programs, stop, due)
            if came:
                # What has begun goes on: its records are read together.
                stop.wait(pause)
        self._finish(programs, sink)

    def _emit(self, sink: Sink, records: list[Record]) -> None:
        self._unsent += records
        sink.emit_many(self._unsent)
        self._unsent = []

    def _drain(
        self,
        programs: Programs,
        sink: Sink,
        *,
        until: int | None = None,
        into: list[Record] | None = None,
    ) -> int:
        """Hand over what is in the ring by now; how many events that were."""
        ring, decoder = programs.ring, self._decoder
        until = ring.produced if until is None else until
        offset_ns = boot_offset_ns()
        before = self._received
        while ring.consumed < until:
            offsets, position = ring.next_records(CHUNK, until)
            if position == ring.consumed:
                break  # the kernel still writes the next one
            events = decoder.decode(ring.data, offsets, offset_ns)
            # The kernel may have the room again, before the sink makes anybody wait.
            ring.release(position)
            self._received += len(events)
            self._emit(sink, events)
            if into is not None:
                into += events
        return self._received - before

    def _sleep(self, programs: Programs, stop: Event, due: float) -> bool:
        """Wait until something comes or the monotonic time ``due``; whether something came."""
        ring = programs.ring
        programs.sleeping(True)
        # What came before the programs could know of it would wake nobody.
        while ring.produced == ring.consumed and not stop.is_set():
            left_s = due - time.monotonic()
            if left_s <= 0:
                break
            self._epoll.poll(min(left_s, SLEEP_S))
        programs.sleeping(False)
        return ring.produced != ring.consumed

    def _account(self, programs: Programs, sink: Sink) -> bool:
        """State what was emitted and what became of it; False if there was no quiet instant."""
        now = cut(programs)
        if now is None:
            return False
        if now.totals == self._accounted:
            return True
        self._drain(programs, sink, until=now.position)
        if programs.ring.consumed < now.position:
            return False  # another record, not an event, is being written
        self._accounted = now.totals
        if time.monotonic() >= self._missed_due:
            self._missed_due = time.monotonic() + MISSED_EVERY_S
            # Without capabilities old kernels do not tell.
            with contextlib.suppress(BpfError):
                self._missed = programs.missed()
        lost = {
            "ring_full": now.totals.ring_full,
            "throttled": now.totals.throttled,
            "missed": self._missed,
        }
        if unidentified := self._decoder.unidentified:
            lost["unidentified"] = unidentified
        emitted = now.totals.begun + self._missed
        sink.balance(emitted, self._received, lost)
        self._given = _Account(emitted, self._received, lost)
        return True

    def _lost_since_snapshot(self) -> bool:
        return sum(self._given.lost.values()) > self._lost_at_snapshot

    def _snapshot(self, programs: Programs, sink: Sink) -> None:
        lost = self._lost_since_snapshot()
        self._lost_at_snapshot = sum(self._given.lost.values())
        moment = time.monotonic()

        def drain() -> list[Record]:
            came: list[Record] = []
            self._drain(programs, sink, into=came)
            return came

        try:
            records = self._snapshots.take(lost, drain)
        except (BpfError, OSError) as error:
            # Kernels before 5.19 may refuse an iterator once the capabilities are dropped.
            self._proc_only = str(error)
            self._snapshots = ProcSnapshots(self._cgroups)
            return
        if self._config.sample_interval:
            ts_ns = records[-1].ts_ns if records else time.time_ns()
            records.append(self._system.sample(ts_ns, moment, self._snapshots.count))
        else:
            records = [record for record in records if record.type == "event"]
        self._emit(sink, records)

    def _finish(self, programs: Programs, sink: Sink) -> None:
        programs.detach()
        self._missed_due = 0.0
        deadline = time.monotonic() + DRAIN_S
        while True:
            self._drain(programs, sink)
            if self._account(programs, sink) or time.monotonic() > deadline:
                return
            time.sleep(LOOK_EVERY_S)

    # --- what it says of itself -----------------------------------------------------------

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while events are lost; the limits are what this kernel does not offer."""
        programs, given = self._programs, self._given
        if programs is None:
            return Health()
        limits = requirements.limits()
        if self._proc_only:
            limits.append(f"processes are measured through /proc: {self._proc_only}")
        limits += [
            f"the kernel refused the program {name}"
            for name in programs.without
            if name != SNAPSHOT
        ]
        before, self._lost_at_health = self._lost_at_health, dict(given.lost)
        reasons = [
            _SAID[why].format(count=count)
            for why, total in given.lost.items()
            if (count := total - before.get(why, 0)) > 0
        ]
        if given.lost.get("throttled", 0) > before.get("throttled", 0):
            reasons += self._loudest(programs)
        if not given.balances:
            reasons.append(
                f"the account does not balance: of {given.emitted} events {given.received} "
                f"came and {sum(given.lost.values())} were lost"
            )
        if reasons:
            return Health("degraded", "; ".join(reasons), tuple(limits))
        return Health(limits=tuple(limits))

    def _loudest(self, programs: Programs) -> list[str]:
        groups = programs.throttled_groups()
        if not groups:
            return []
        loudest = max(groups, key=lambda group: groups[group])
        return [f"most of cgroup {self._cgroups.find(loudest) or loudest}"]


#: What each reason means for whoever reads it.
_SAID = {
    "ring_full": "{count} events were lost because the ring was full (a larger ring_size helps)",
    "throttled": "{count} events were throttled (cgroup_rate)",
    "missed": "{count} events met a program that was running already",
    "unidentified": "{count} victims of the OOM killer were not known",
}
