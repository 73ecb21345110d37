"""Histograms of how late things come."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from linnix_core import Alert, ProcessEvent
from linnix_plugin_prometheus.latency import BOUNDS_S, Latency

NOW_NS = 1_700_000_000 * 10**9


class Clock:
    """Stands still."""

    def time_ns(self):
        return NOW_NS

    def monotonic(self):
        return 5.0


def fork(late_ns, pid=2):
    return ProcessEvent("fork", pid=pid, start_ns=10**7, ts_ns=NOW_NS - late_ns)


@given(st.lists(st.lists(st.integers(-(10**10), 2 * 3600 * 10**9)), max_size=5))
def test_buckets_are_those_that_one_look_up_for_each_lag_would_fill(batches):
    latency = Latency()
    for batch in batches:
        latency.add(batch)
    lags = [max(lag, 0) for batch in batches for lag in batch if lag <= 3600 * 10**9]
    expected = [0] * len(BOUNDS_S)
    for lag in lags:
        for place in range(bisect_left([round(b * 1e9) for b in BOUNDS_S], lag), len(BOUNDS_S)):
            expected[place] += 1
    assert latency.buckets == expected
    assert (latency.count, latency.sum_ns) == (len(lags), sum(lags))


def test_an_event_is_as_late_as_the_clock_says(told):
    exported = (
        told(clock=Clock()).batch(fork(400_000), fork(3_000_000), fork(40 * 10**9)).exported()
    )
    bucket = {
        dict(labels)["le"]: count
        for labels, count in exported.series("linnix_stage_latency_seconds_bucket").items()
        if ("stage", "event") in labels
    }
    assert (bucket["0.001"], bucket["0.005"], bucket["30.0"], bucket["+Inf"]) == (1, 2, 2, 3)
    assert exported.value("linnix_stage_latency_seconds_sum", stage="event") == 40.0034


def test_what_was_running_already_is_not_late(told):
    seen = ProcessEvent("seen", pid=1, start_ns=0, ts_ns=NOW_NS - 10**9)
    exported = told(clock=Clock()).batch(seen, fork(1000)).exported()
    assert exported.value("linnix_stage_latency_seconds_count", stage="event") == 1


def test_a_replay_of_the_past_says_nothing_of_latency(told):
    exported = told(clock=Clock()).batch(fork(86400 * 10**9)).exported()
    assert exported.value("linnix_stage_latency_seconds_count", stage="event") == 0
    assert exported.value("linnix_events_total") == 1


def test_alerts_have_a_stage_of_their_own(told):
    handler = told(clock=Clock())
    handler.handler.linnix_alert(Alert("r", "low", "m", ts_ns=NOW_NS - 2 * 10**9))
    exported = handler.exported()
    assert exported.value("linnix_stage_latency_seconds_sum", stage="alert") == 2
