"""Counting: every event once, losses as their component counts them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from linnix_core import Loss, Pressure, ProcessEvent, ProcessSample, SystemSample
from linnix_plugin_console.tally import Rates, Tally

KINDS = ("seen", "fork", "exec", "exit", "oom")


@given(st.lists(st.lists(st.sampled_from(KINDS))))
def test_events_are_counted_by_kind_and_those_seen_are_none(batches: list[list[str]]) -> None:
    tally = Tally()
    for kinds in batches:
        tally.add([ProcessEvent(kind, 1, 0) for kind in kinds])  # type: ignore[arg-type]
    expected = Counter(kind for kinds in batches for kind in kinds if kind != "seen")
    assert Counter(tally.events()) == expected


def test_losses_are_as_last_reported_by_component_and_reason() -> None:
    tally = Tally()
    tally.add([Loss("collectors.ebpf", "ring_full", 5, 5, 10**10)])
    tally.add(
        [
            Loss("collectors.ebpf", "ring_full", 2, 7, 10**10),
            Loss("handlers.jsonl", "queue_full", 3, 3, 10**10),
        ]
    )
    assert tally.losses() == {
        ("collectors.ebpf", "ring_full"): 7,
        ("handlers.jsonl", "queue_full"): 3,
    }
    assert tally.lost == 10


def test_a_window_without_a_loss_is_no_news() -> None:
    tally = Tally()
    quiet = Loss("collectors.ebpf", "ring_full", 0, 0, 10**10)
    loud = Loss("collectors.ebpf", "throttled", 1, 1, 10**10)
    assert tally.add([quiet, loud]) == [loud]
    assert tally.losses() == {("collectors.ebpf", "throttled"): 1}


def test_two_collectors_may_each_know_a_part_of_the_machine() -> None:
    tally = Tally()
    pressure = Pressure(some_avg10=3.0, some_total_us=1)
    tally.add([SystemSample(10**9, cpu_percent=10.0, load1=1.0)])
    tally.add([SystemSample(10**9, psi_io=pressure)])
    tally.add([SystemSample(10**9, cpu_percent=20.0)])
    assert tally.machine is not None
    assert (tally.machine.cpu_percent, tally.machine.load1) == (20.0, 1.0)
    assert tally.machine.psi_io == pressure


def test_only_events_and_samples_move_the_process_table() -> None:
    tally = Tally()
    tally.add([SystemSample(10**9), Loss("a", "b", 1, 1, 10**10)])
    assert tally.moves == 0
    tally.add([ProcessSample(1, 0, 10**9)])
    tally.add([ProcessEvent("exit", 1, 0)])
    assert tally.moves == 2


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 1000)), min_size=1),
    st.floats(1, 10),
)
def test_a_rate_is_what_came_in_the_window_by_the_time_it_took(
    steps: list[tuple[float, int]], window: float
) -> None:
    rates = Rates(window, now=0.0)
    now, total = 0.0, 0
    points = [(now, total)]
    shown = {}
    for seconds, more in steps:
        now, total = now + seconds, total + more
        points.append((now, total))
        shown = rates.update(now, {"fork": total})
    # Since the last look that is at least a window old, or else since the first.
    then, before = next(
        (point for point in reversed(points[:-1]) if point[0] <= now - window), points[0]
    )
    assert shown == {"fork": (total - before) / (now - then)}


def test_a_rate_over_no_time_is_none() -> None:
    assert Rates(5.0, now=1.0).update(1.0, {"fork": 3}) == {"fork": 0.0}
