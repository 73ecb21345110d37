"""What the detector finds, what it does not depend on, and what it remembers."""

import json
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_plugin_anomaly.detector import Detector
from linnix_plugin_anomaly.gaussian import windowed_gaussian
from linnix_plugin_anomaly.rarity import Rarity

MINUTE_S = 60
START_S = 1_767_225_600

#: Values on a grid of 2**-10, so that scaling and shifting them is exact.
steps = st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=120)


def scores(values, warmup=30, step_s=MINUTE_S):
    detector = Detector(warmup=warmup)
    return [detector.judge(START_S + i * step_s, each).score for i, each in enumerate(values)]


def noise(count, seed=1, spread=1.0):
    generator = random.Random(seed)
    return [100 + generator.gauss(0, spread) for _ in range(count)]


def daily(days, seed=3):
    generator = random.Random(seed)
    return [
        (80 if 9 <= hour < 17 else 20) + generator.gauss(0, 1)
        for _ in range(days)
        for hour in range(24)
        for _ in range(12)
    ]


@given(st.floats(-1e300, 1e300), st.integers(1, 200))
def test_a_constant_series_is_silent(value, count):
    assert scores([value] * count, warmup=5) == [0.0] * count


@given(steps, st.integers(-8, 8))
def test_the_scale_does_not_matter(values, octaves):
    assert scores([v * 2.0**octaves for v in values], 5) == scores([float(v) for v in values], 5)


def test_the_origin_does_not_matter():
    values = noise(600)
    values[500] = 130
    shifted = scores([each - 4096 for each in values])
    assert shifted == pytest.approx(scores(values), abs=0.2)


def test_a_spike_scores_most():
    values = noise(500)
    values[400] = 130
    found = scores(values)
    assert max(range(500), key=found.__getitem__) == 400
    assert found[400] > 3


def test_a_new_level_scores_where_it_begins():
    values = noise(500) + [each + 20 for each in noise(500, seed=2)]
    found = scores(values)
    assert max(range(1000), key=found.__getitem__) in range(500, 505)


def test_an_ordinary_value_at_an_unusual_hour_scores():
    values = daily(20)
    at = 15 * 288 + 12 * 12
    values[at : at + 36] = noise(36, spread=1)
    values[at : at + 36] = [each - 80 for each in values[at : at + 36]]
    detector = Detector(warmup=750)
    found = [detector.judge(START_S + i * 300, each) for i, each in enumerate(values)]
    most = max(range(len(found)), key=lambda i: found[i].score)
    assert most in range(at, at + 36)
    assert found[most].usual == "hour"
    assert found[most].expected == pytest.approx(80, abs=5)


def test_the_first_change_of_all_is_as_surprising_as_it_was_long_in_coming():
    detector = Detector(warmup=100)
    for i in range(500):
        detector.judge(START_S + i * MINUTE_S, 7.0)
    change = detector.judge(START_S + 500 * MINUTE_S, 1e9)
    assert change.surprise == pytest.approx(math.log10(2 * 501))


def test_an_hour_is_compared_with_that_of_other_days_only():
    detector = Detector(warmup=30)
    first_day = [detector.judge(START_S + i * 300, each).usual for i, each in enumerate(daily(1))]
    assert set(first_day) == {"level"}


def test_nothing_scores_before_the_warm_up_is_over():
    values = noise(99)
    values[60] = 1e6
    assert scores(values, warmup=100) == [0.0] * 99
    assert scores(values, warmup=50)[60] > 0


def test_what_goes_on_scores_once():
    values = noise(400)
    values[300:310] = [200.0] * 10
    assert [i for i, each in enumerate(scores(values, warmup=100)) if each > 3] == [300]


@pytest.mark.parametrize(("warmup", "again"), [(100, True), (200, False)])
def test_after_the_rest_it_scores_again(warmup, again):
    # The rest is four tenths of the warm-up: 40 points, or 80.
    values = noise(500)
    values[300] = values[360] = 150.0
    assert (scores(values, warmup=warmup)[360] > 2) is again


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_every_finite_value_is_taken(values):
    assert all(math.isfinite(each) and each >= 0 for each in scores(values, warmup=5))


@settings(max_examples=30)
@given(steps, steps)
def test_what_was_learnt_survives_a_restart_exactly(before, after):
    unbroken, first = Detector(warmup=20), Detector(warmup=20)
    for i, value in enumerate(before):
        unbroken.judge(START_S + i * 600, value / 1024)
        first.judge(START_S + i * 600, value / 1024)
    second = Detector(warmup=20)
    second.restore(json.loads(json.dumps(first.state())))
    for i, value in enumerate(after, start=len(before)):
        expected = unbroken.judge(START_S + i * 600, value / 1024)
        assert second.judge(START_S + i * 600, value / 1024)[:4] == expected[:4]
    assert second.state() == unbroken.state()


def test_what_is_remembered_does_not_grow():
    generator = random.Random(5)
    detector = Detector(warmup=100)
    for i in range(20_000):
        detector.judge(START_S + i * MINUTE_S, generator.lognormvariate(0, 8))
    state = detector.state()
    assert len(state["recent"]) <= 40
    for part in ("by_level", "by_hour"):
        assert len(state[part]["bins"]) <= 240
        assert sum(state[part]["bins"].values()) <= 16_384


@pytest.mark.parametrize(
    "change",
    [
        {"seen": -1}, {"seen": 1.5}, {"seen": None}, {"level": [1.0]}, {"level": ["a", "b"]},
        {"level": [1.0, math.nan]}, {"hours": []}, {"hours": 7}, {"by_level": {}},
        {"recent": [[0]]}, {"recent": [[0, "high"]]},
        {"by_hour": {"exponent": 10**9, "largest": 0, "bins": {}}},
        {"by_hour": {"exponent": 1, "largest": 900, "bins": {}}},
        {"by_hour": {"exponent": 1, "largest": 0, "bins": {"900": 1}}},
        {"by_hour": {"exponent": 1, "largest": 0, "bins": {"1": -1}}},
        {"by_hour": {"exponent": 1, "largest": 0, "bins": {"1": 1e300}}},
        {"by_hour": {"exponent": 1, "largest": 0, "bins": {"1": 16e3, "2": 16e3}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_is_none_is_refused(change):
    detector = Detector()
    with pytest.raises((ValueError, KeyError, TypeError)):
        detector.restore(Detector().state() | change)


def test_surprise_is_the_share_of_deviations_as_large():
    rarity = Rarity()
    for deviation in [1.0] * 900 + [2.0] * 90 + [4.0] * 10:
        rarity.add(deviation)
    assert 10 ** -rarity.add(3.0) == pytest.approx(10.5 / 1001)
    # Ten times the largest is one more than being the largest.
    largest, beyond = rarity.add(4.0), rarity.add(40.0)
    assert beyond == pytest.approx(-math.log10(0.5 / 1003) + 1, abs=0.03)
    assert largest < beyond


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300), st.floats(0.1, 5))
def test_the_edge_is_where_deviations_begin_to_be_so_surprising(deviations, surprise):
    rarity, other = Rarity(), Rarity()
    for each in deviations:
        rarity.add(each)
        other.add(each)
    edge = rarity.edge(surprise)
    assert other.add(edge * 1.001) >= surprise - 1e-9
    if edge > min(deviations):
        assert rarity.add(edge * 0.9) <= surprise


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(2, 20))
def test_the_windowed_gaussian_is_the_tail_of_a_normal_distribution(values, window):
    values = [round(each, 3) for each in values]
    for i, score in enumerate(windowed_gaussian(values, window)):
        held = values[max(0, i - window) : i]
        if not held:
            assert score == 0.0
        elif (deviation := statistics.pstdev(held)) > 0.1:
            distance = abs(values[i] - statistics.fmean(held)) / deviation
            assert score == pytest.approx(statistics.NormalDist().cdf(distance), abs=1e-4)
