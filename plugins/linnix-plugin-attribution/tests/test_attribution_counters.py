"""Counters of which there are only so many."""

from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_attribution.counters import QUIET_NS, Counters


def test_the_smallest_makes_room():
    counters = Counters(2)
    for name, amount in (("large", 9), ("small", 1), ("new", 2)):
        counters.add(name, amount, now_ns=0)
    assert dict(counters.items()) == {"large": 9, "new": 2}
    assert counters.evicted == 1


def test_what_is_large_and_quiet_makes_room_before_what_grows():
    counters = Counters(2)
    counters.add("quiet", 1_000_000, now_ns=0)
    counters.add("grows", 1, now_ns=QUIET_NS)
    counters.add("new", 1, now_ns=QUIET_NS)
    assert dict(counters.items()) == {"grows": 1, "new": 1}


def test_with_more_than_there_is_room_for_the_largest_keep_counting():
    counters = Counters(16)
    for now_ns in range(10):
        for number in range(20):
            counters.add(number, number, now_ns)
    kept = dict(counters.items())
    assert all(kept[number] == 10 * number for number in range(12, 20))


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(0, 2 * QUIET_NS))),
)
def test_there_are_never_more_than_so_many(most, additions):
    counters = Counters(most)
    for key, amount, now_ns in additions:
        counters.add(key, amount, now_ns)
        kept = dict(counters.items())
        assert len(kept) <= most
        assert kept[key] >= amount
