"""Waiting for what nothing tells of: until it is so, and no longer than told."""

from __future__ import annotations

import pytest

from linnix_core.testing.waiting import eventually


def test_what_is_so_is_looked_at_once_and_given():
    looks = iter([["first"], ["second"]])
    assert eventually(lambda: next(looks)) == ["first"]
    assert next(looks) == ["second"]


def test_what_is_not_yet_so_is_looked_at_again():
    looks = iter([0, None, "", 3, 4])
    assert eventually(lambda: next(looks)) == 3
    assert next(looks) == 4


def test_what_has_to_hold_may_be_more_than_that_there_is_something():
    looks = iter([7, 1, 0, 5])
    assert eventually(lambda: next(looks), lambda number: number < 1) == 0
    assert next(looks) == 5


def test_what_never_comes_is_an_assertion_that_failed():
    with pytest.raises(AssertionError) as caught:
        eventually(lambda: {"status": "down"}.get("reason"), within_s=0)
    awaited, seen = str(caught.value).splitlines()
    assert awaited.startswith("not within 0 s: eventually(lambda: ")
    assert '.get("reason")' in awaited
    assert seen == "seen last: None"


def test_what_has_to_hold_is_what_is_said_to_have_been_awaited():
    def answers(health):
        return health == "ok"

    with pytest.raises(AssertionError) as caught:
        eventually(lambda: "down", answers, within_s=0)
    assert str(caught.value).splitlines() == [
        "not within 0 s: def answers(health):",
        "seen last: 'down'",
    ]


def test_methods_are_shown_with_what_they_belong_to(tmp_path):
    with pytest.raises(AssertionError, match=r"s: <bound method .*exists of .*/nothing'\)>"):
        eventually((tmp_path / "nothing").exists, within_s=0)


def test_what_another_process_said_is_asked_for_at_the_end_only():
    looks = iter([False, True])
    eventually(lambda: next(looks), said=lambda: pytest.fail("asked for too soon"))
    with pytest.raises(AssertionError, match=r"seen last: \[\]\nits log"):
        eventually(list, said=lambda: "its log", within_s=0)


def test_however_long_a_look_takes_there_is_one_after_the_time_has_passed(monkeypatch):
    """A test that is not run for a minute has not waited in vain."""
    now = iter([0.0, 59.0, 1000.0])
    monkeypatch.setattr("linnix_core.testing.waiting.time.monotonic", lambda: next(now))
    looks = iter([False, "came meanwhile"])
    assert eventually(lambda: next(looks)) == "came meanwhile"


def test_what_is_seen_is_cut_where_it_is_long():
    with pytest.raises(AssertionError) as caught:
        eventually(lambda: "x" * 10**6, lambda text: not text, within_s=0)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("error", [KeyError("gone"), AssertionError("the child has ended")])
def test_what_looking_raises_passes_through(error):
    def look():
        raise error

    with pytest.raises(type(error)) as caught:
        eventually(look)
    assert caught.value is error
