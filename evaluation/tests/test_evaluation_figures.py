"""Intervals, bounds and percentiles have the values that tables give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.figures import percentile, poisson_bound, wilson


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [  # Newcombe 1998, table I, method 3, and R's prop.test(correct = FALSE)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_the_interval_of_wilson(hits, of, low, high):
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_of_nothing_nothing_is_known():
    assert wilson(0, 0) == (0.0, 1.0)
    assert percentile([], 0.5) is None


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share(hits, more):
    low, high = wilson(hits, hits + more)
    assert 0 <= low <= hits / (hits + more) + 1e-12
    assert hits / (hits + more) - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("events", "bound"),
    [(0, 2.9957), (1, 4.7439), (2, 6.2958), (5, 10.5130), (10, 16.9622), (50, 63.287)],
)
def test_the_bound_of_a_count(events, bound):
    # Half of the chi-squared quantile of 0.95 with 2 (events + 1) degrees of freedom.
    assert poisson_bound(events) == pytest.approx(bound, abs=1e-3)


def test_percentiles_lie_between_ranks():
    assert percentile([3, 1, 2, 4], 0.5) == 2.5
    assert percentile([7], 0.95) == 7
    assert percentile(range(101), 0.95) == pytest.approx(95)
