"""Scores are those of the Numenta benchmark: against its published values, and by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_anomaly.numenta import PROFILES, Scored, optimum, probation, scaled_sigmoid

STANDARD = PROFILES["standard"]


def series(length, detections, windows):
    return Scored([1.0 if i in detections else 0.0 for i in range(length)], windows)


@pytest.mark.parametrize(
    ("position", "worth"),
    [(-1.0, 0.98661), (-0.5, 0.84828), (0.0, 0.0), (1.0, -0.98661), (3.0, -1.0), (40.0, -1.0)],
)
def test_a_detection_is_worth_what_the_benchmark_publishes(position, worth):
    assert scaled_sigmoid(position) == pytest.approx(worth, abs=1e-5)


@pytest.mark.parametrize(("points", "expected"), [(100, 15), (4032, 604), (22695, 750), (3, 0)])
def test_probation_is_fifteen_percent_of_at_most_five_thousand_points(points, expected):
    assert probation(points) == expected


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_detecting_each_window_at_once_is_perfect(profile):
    perfect = [series(100, {20, 60}, [(20, 29), (60, 69)]), series(100, set(), [])]
    assert optimum(perfect, profile).score == pytest.approx(100)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_never_detecting_is_zero(profile):
    nothing = [Scored([0.5] * 1000, [(500, 520)])]
    assert optimum(nothing, profile) == (0.0, math.inf)


def test_only_the_first_detection_in_a_window_counts():
    early = series(100, {52}, [(50, 59)])
    both = series(100, {52, 57}, [(50, 59)])
    assert optimum([both], STANDARD).score == optimum([early], STANDARD).score


def test_later_in_the_window_is_worth_less():
    # Half way: scaled sigmoid of -5/10 over that of -1, on a scale from -1 to 1.
    found = optimum([series(100, {55}, [(50, 59)])], STANDARD).score
    assert found == pytest.approx(100 * (0.84828 / 0.98661 + 1) / 2, abs=0.001)


def test_a_false_alarm_costs_its_weight_before_and_less_just_after_a_window():
    hit, window = {50}, [(50, 59)]
    before = optimum([series(200, hit | {40}, window)], STANDARD).score
    assert before == pytest.approx(100 * (2 - 0.11) / 2)
    after = optimum([series(200, hit | {61}, window)], STANDARD).score
    # Two points after the last, in a window of nine steps.
    assert after == pytest.approx(100 * (2 + 0.11 * (2 / (1 + math.exp(5 * 2 / 9)) - 1)) / 2)
    far = optimum([series(200, hit | {150}, window)], STANDARD).score
    assert far == pytest.approx(before)


def test_profiles_weigh_false_alarms_and_misses():
    noisy = [series(200, {50, 150}, [(50, 59)]), series(200, set(), [(100, 109)])]
    # One of two windows at once, and one false alarm.
    expected = {"standard": (1 - 0.11 - 1 + 2) / 4, "low_fp": (1 - 0.22 - 1 + 2) / 4}
    expected["low_fn"] = (1 - 0.11 - 2 + 4) / 6
    for name, share in expected.items():
        assert optimum(noisy, PROFILES[name]).score == pytest.approx(100 * share)


def test_detections_in_probation_count_for_nothing():
    assert optimum([series(100, {3, 50}, [(50, 59)])], STANDARD).score == pytest.approx(100)


def test_one_threshold_is_chosen_for_all_series():
    sure = Scored([0.9 if i == 50 else 0.0 for i in range(100)], [(50, 59)])
    unsure = Scored([0.4 if i == 50 else 0.3 if i > 70 else 0.0 for i in range(100)], [(50, 59)])
    assert optimum([sure, unsure], STANDARD) == (pytest.approx(100), 0.4)
    # With a threshold of its own each would lose nothing either, but 0.9 misses one of both.
    assert optimum([sure, unsure], STANDARD, threshold=0.9).score == pytest.approx(50)


def test_series_without_any_window_cannot_be_scored():
    with pytest.raises(ValueError, match="no labelled window"):
        optimum([series(100, {50}, [])], STANDARD)


@st.composite
def scored(draw):
    windows, at = [], draw(st.integers(15, 30))
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 12))
        windows.append((at, at + width - 1))
        at += width + draw(st.integers(1, 20))
    length = at + draw(st.integers(0, 20))
    values = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    scores = draw(st.lists(values, min_size=length, max_size=length))
    # Nothing scores in the probation of any length that occurs here.
    return Scored([0.0] * 15 + scores[15:], windows)


@given(st.lists(scored(), min_size=1, max_size=3), st.sampled_from(sorted(PROFILES)))
def test_the_threshold_is_the_best_of_all(many, name):
    profile = PROFILES[name]
    tried = [by_definition(many, profile, threshold) for threshold in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert optimum(many, profile).score == pytest.approx(max(tried))


def by_definition(many, profile, threshold):
    total = windows = 0
    for each in many:
        start = probation(len(each.scores))
        detected = [i for i in range(start, len(each.scores)) if each.scores[i] >= threshold]
        for first, last in each.windows:
            if last < start:
                continue
            windows += 1
            inside = [i for i in detected if first <= i <= last]
            if inside:
                worth = scaled_sigmoid(-(last - inside[0] + 1) / (last - first + 1))
                total += profile.detected * worth / scaled_sigmoid(-1)
            else:
                total -= profile.missed
        for i in detected:
            if any(first <= i <= last for first, last in each.windows):
                continue
            before = [(first, last) for first, last in each.windows if last < i]
            if before and before[-1][0] < before[-1][1]:
                first, last = before[-1]
                total += profile.false * scaled_sigmoid((i - last) / (last - first))
            else:
                total -= profile.false
    return 100 * (total / windows + profile.missed) / (profile.detected + profile.missed)
