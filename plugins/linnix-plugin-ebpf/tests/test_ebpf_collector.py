"""What can be configured, what it says of itself, and why its accounts can be trusted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Health
from linnix_plugin_ebpf import EbpfConfig
from linnix_plugin_ebpf.balance import cut
from linnix_plugin_ebpf.libbpf import BpfError, BpfObject
from linnix_plugin_ebpf.programs import Totals

# --- configuration ------------------------------------------------------------------------


def test_the_defaults():
    config = EbpfConfig()
    assert (config.ring_size, config.cgroup_rate, config.sample_interval) == (4 << 20, 50_000, 1)


@pytest.mark.parametrize("size", [0, 4095, (1 << 30) + 1])
def test_a_ring_has_a_size_that_kernels_take(size):
    with pytest.raises(ValueError, match="ring_size must be between 4KiB and 1GiB"):
        EbpfConfig(ring_size=size)


@pytest.mark.parametrize("key", ["cgroup_rate", "sample_interval"])
@pytest.mark.parametrize("value", [-1, -0.001, float("inf"), float("nan")])
def test_nothing_is_negative(key, value):
    with pytest.raises(ValueError, match=f"{key} must not be negative"):
        EbpfConfig(**{key: value})


@pytest.mark.parametrize("size", [4096, 5000, 1 << 20])
def test_any_size_of_a_ring_works(start_collector, size):
    start_collector(ring_size=size).begin().catch_up()


# --- health -------------------------------------------------------------------------------


def test_before_the_start_there_is_nothing_to_say(make_collector):
    assert make_collector().linnix_health() == Health()


def test_while_nothing_is_lost_it_is_well(start_collector):
    running = start_collector()
    running.begin().catch_up()
    assert running.collector.linnix_health() == Health()


def test_events_that_met_a_running_program_are_told(start_collector, monkeypatch):
    running = start_collector()
    monkeypatch.setattr(running.collector._programs, "missed", lambda: 3)
    running.begin().catch_up()
    running.end()
    emitted, received, lost = running.account
    assert lost["missed"] == 3
    assert emitted == received + 3
    assert running.collector.linnix_health() == Health(
        "degraded", "3 events met a program that was running already"
    )


def test_a_kernel_that_does_not_tell_what_it_missed_is_no_failure(start_collector, monkeypatch):
    running = start_collector()

    def refuse():
        raise BpfError("sched_process_fork", 1)

    monkeypatch.setattr(running.collector._programs, "missed", refuse)
    running.begin().catch_up()
    running.end()
    assert running.account[2]["missed"] == 0
    assert running.raised == []


def test_an_account_that_does_not_balance_is_told(start_collector):
    running = start_collector()
    running.collector._received = -1  # as if a record had been passed over
    running.begin().catch_up()
    running.end()
    emitted, received, _ = running.account
    assert emitted == received + 1
    health = running.collector.linnix_health()
    assert health.status == "degraded"
    assert health.reason == (
        f"the account does not balance: of {emitted} events {received} came and 0 were lost"
    )


def test_a_map_that_is_full_forgets_the_oldest_group_and_loses_nothing(
    start_collector, make_group, storm, monkeypatch
):
    load = BpfObject.load

    def load_small(self):
        self.resize("buckets", 2)
        load(self)

    monkeypatch.setattr(BpfObject, "load", load_small)
    running = start_collector(cgroup_rate=10_000)
    seen = running.begin()
    for _ in range(8):
        parent = storm(10, group=make_group())
        seen.catch_up()
        assert len(seen.events("fork", ppid=parent.pid)) == 10
    running.end()
    emitted, received, lost = running.account
    assert emitted == received
    assert set(lost.values()) == {0}


# --- the instant of an account ------------------------------------------------------------


class Kernel:
    """Programs on several processors, which go on a little whenever somebody looks.

    Each event is begun, then maybe written to the ring, then counted as what became of it.
    """

    def __init__(self, fates, schedule):
        self._fates = iter(fates)
        self._schedule = iter(schedule)
        self._at_work = {}
        self._written = 0
        self._counts = dict.fromkeys(Totals._fields, 0)
        self.ring = self

    def _go_on(self):
        for processor in next(self._schedule, ()):
            fate, written = self._at_work.pop(processor, (None, False))
            if fate is None:
                if (fate := next(self._fates, None)) is not None:
                    self._counts["begun"] += 1
                    self._at_work[processor] = fate, False
            elif not written:
                self._written += fate == "submitted"
                self._at_work[processor] = fate, True
            else:
                self._counts[fate] += 1

    @property
    def produced(self):
        self._go_on()
        return self._written

    def totals(self):
        counts = []
        for field in Totals._fields:
            self._go_on()
            counts.append(self._counts[field])
        return Totals(*counts)


fates = st.lists(st.sampled_from(["submitted", "ring_full", "throttled"]), max_size=12)
schedules = st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=40)


@settings(deadline=None, max_examples=500)
@given(fates, schedules)
def test_an_account_is_of_an_instant_in_which_nothing_was_half_done(fates, schedule):
    """Whenever processors go on while the counters are read."""
    kernel = Kernel(fates, schedule)
    for _ in range(12):
        if (found := cut(kernel)) is not None:
            totals = found.totals
            assert found.position == totals.submitted
            assert totals.begun == totals.submitted + totals.ring_full + totals.throttled


def test_a_quiet_moment_is_always_found():
    kernel = Kernel(["submitted"] * 3, [[0, 0, 0, 1, 1, 1, 2, 2, 2]])
    assert cut(kernel) == (3, Totals(3, 3, 0, 0))


def test_while_an_event_is_half_done_there_is_no_account():
    assert cut(Kernel(["submitted"], [[0]])) is None
    assert cut(Kernel(["submitted"], [[0, 0]])) is None
