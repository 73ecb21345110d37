"""The arithmetic of one stall: the published numbers, and what always holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_attribution import Activity, split


def parts(split_):
    return {name: share.attributed_us for name, share in split_.shares.items()}


def reasons(split_):
    return {name: share.reason for name, share in split_.shares.items()}


# --- the scenario table of the original -----------------------------------------------------


def test_a_batch_job_beside_a_sidecar_is_charged_by_their_cpu():
    found = split(800_000, {"image-resize-worker": Activity(90), "sidecar-proxy": Activity(1)})
    assert parts(found) == {"image-resize-worker": 791_208, "sidecar-proxy": 8_791}
    assert reasons(found)["image-resize-worker"] == "high_cpu_contention"


def test_a_fork_bomb_outweighs_a_steady_worker_with_more_cpu():
    others = {"fork-bomb": Activity(10, forks=400), "steady-worker": Activity(20)}
    found = split(1_000_000, others)
    assert parts(found) == {"fork-bomb": 666_666, "steady-worker": 333_333}
    assert reasons(found) == {"fork-bomb": "fork_storm", "steady-worker": "high_cpu_contention"}


def test_short_jobs_are_charged_though_none_lived_to_be_sampled():
    found = split(600_000, {"ci-runner": Activity(short_jobs=120)})
    assert parts(found) == {"ci-runner": 600_000}
    assert reasons(found) == {"ci-runner": "short_job_churn"}


def test_processes_of_one_group_are_one_neighbour():
    others = {"multi-proc-worker": Activity(4 * 20), "single-proc-neighbour": Activity(30)}
    assert parts(split(1_000_000, others)) == {
        "multi-proc-worker": 727_272,
        "single-proc-neighbour": 272_727,
    }


def test_four_equal_neighbours_are_charged_equally():
    others = {f"neighbour-{letter}": Activity(25) for letter in "abcd"}
    assert parts(split(300_000, others)) == dict.fromkeys(others, 75_000)


def test_three_to_one_of_900_ms():
    assert parts(split(900_000, {"a": Activity(3), "b": Activity(1)})) == {
        "a": 675_000,
        "b": 225_000,
    }


# --- where it goes beyond the original ------------------------------------------------------


def test_nobody_is_charged_with_more_than_the_time_it_ran():
    """The original would charge a neighbour that did next to nothing with everything."""
    found = split(800_000, {"idle": Activity(10_000, at_most_us=10_000)})
    assert parts(found) == {"idle": 10_000}
    assert found.unexplained_us == 790_000


def test_what_one_cannot_have_caused_goes_to_the_others():
    bomb = Activity(50_000, forks=400, at_most_us=50_000)
    found = split(1_000_000, {"bomb": bomb, "worker": Activity(2e6, at_most_us=2_000_000)})
    assert parts(found) == {"worker": 950_000, "bomb": 50_000}
    assert found.unexplained_us == 0


def test_the_own_limit_of_the_victim_comes_first():
    found = split(1_000_000, {"other": Activity(1)}, by_limit_us=700_000)
    assert (found.by_limit_us, parts(found)) == (700_000, {"other": 300_000})


def test_a_limit_never_explains_more_than_there_is():
    assert split(1_000, {"other": Activity(1)}, by_limit_us=10**9).by_limit_us == 1_000


def test_threads_of_the_victim_compete_like_those_of_others():
    found = split(1_000_000, {"other": Activity(1)}, itself=Activity(3))
    assert (found.by_itself_us, parts(found)) == (750_000, {"other": 250_000})


def test_forks_and_short_jobs_of_the_victim_never_count():
    itself = Activity(0, forks=10_000, short_jobs=10_000)
    assert split(1_000, {"other": Activity(1)}, itself=itself).by_itself_us == 0


def test_in_a_shorter_interval_fewer_forks_weigh_as_much():
    others = {"bomb": Activity(forks=20), "worker": Activity(1)}
    assert split(1_000, others, seconds=3).shares["bomb"].attributed_us == 500
    assert split(1_000, others, seconds=15).shares["bomb"].attributed_us == 166


def test_without_neighbours_it_remains_unexplained():
    found = split(1_000, {})
    assert (found.shares, found.unexplained_us) == ({}, 1_000)


# --- what always holds ----------------------------------------------------------------------

USES = st.floats(0, 1e15) | st.sampled_from([0.0, 5e-324, 1e-9, 1.0])
ACTIVITIES = st.builds(
    Activity,
    USES,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**10),
)
STALLS = st.fixed_dictionaries(
    {
        "stall_us": st.integers(0, 10**10),
        "others": st.dictionaries(st.text(max_size=3), ACTIVITIES, max_size=12),
        "seconds": st.floats(0.001, 3600),
        "itself": st.none() | ACTIVITIES,
        "by_limit_us": st.integers(-1, 10**11),
    }
)


@given(STALLS)
def test_the_parts_add_up_to_the_stall(stall):
    found = split(**stall)
    explained = sum(parts(found).values()) + found.by_limit_us + found.by_itself_us
    assert explained + found.unexplained_us == found.stall_us == stall["stall_us"]


@given(STALLS)
def test_no_part_is_negative_and_every_number_is_one(stall):
    found = split(**stall)
    assert min(found.by_limit_us, found.by_itself_us, found.unexplained_us) >= 0
    for share in found.shares.values():
        assert share.attributed_us > 0
        assert 0 <= share.use_share <= 1
        assert math.isfinite(share.blame_score)
        assert share.blame_score >= 0


@given(STALLS, st.randoms())
def test_the_order_of_the_groups_makes_no_difference(stall, random):
    others = list(stall["others"].items())
    random.shuffle(others)
    again = split(**{**stall, "others": dict(others)})
    found = split(**stall)
    assert again == found
    assert list(again.shares) == list(found.shares)


@given(STALLS)
def test_nobody_is_charged_above_its_bound(stall):
    for name, share in split(**stall).shares.items():
        bound = stall["others"][name].at_most_us
        assert bound is None or share.attributed_us <= bound


@given(STALLS)
def test_the_idle_are_never_charged(stall):
    for name in split(**stall).shares:
        done = stall["others"][name]
        assert done.use or done.forks or done.short_jobs


@given(st.integers(1, 10**10), USES, USES)
def test_who_used_more_is_charged_with_no_less(stall_us, one, other):
    found = parts(split(stall_us, {"a": Activity(one), "b": Activity(other)}))
    if one >= other:
        assert found.get("a", 0) >= found.get("b", 0)


@pytest.mark.parametrize("short_jobs", [0, 50])
@pytest.mark.parametrize("forks", [0, 100])
def test_between_equal_signals_cpu_comes_first_and_then_forks(forks, short_jobs):
    (share,) = split(1_000, {"only": Activity(1, forks, short_jobs)}).shares.values()
    assert share.reason == "high_cpu_contention"
    (share,) = split(1_000, {"only": Activity(0, forks or 1, short_jobs)}).shares.values()
    assert share.reason == ("fork_storm" if forks or not short_jobs else "short_job_churn")
