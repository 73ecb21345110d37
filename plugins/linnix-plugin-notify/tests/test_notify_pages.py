"""What is told, when, and that it is told once: the account of pages, without disk or network."""

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import CLASSES, SEVERITIES
from linnix_plugin_notify import Route, Router
from linnix_plugin_notify.pages import ORPHAN_NS, PageBook, as_dict, from_dict
from linnix_plugin_notify.testing import explanation, incident, story

HOUR_NS = 3600 * 10**9


def make_book(*routes, **options):
    given_ = {
        "to": "", "updates": True, "resolve_after_ns": 0, "update_every_ns": 0,
        "give_up_ns": 24 * HOUR_NS, "limit": 1000,
    }  # fmt: skip
    return PageBook(Router(routes or (Route(name="all"),)), **{**given_, **options})


def tell_all(book, now_ns, receipt=None):
    """Deliver what is due; what was told."""
    told = []
    while True:
        page, _ = book.next_due(now_ns, {})
        if page is None:
            return told
        message, again = book.begin(page)
        told.append((message.change, again))
        book.told(page, message, receipt or {}, now_ns)


def test_what_changes_before_it_is_told_is_told_once():
    book = make_book()
    opened, worse, closed = story()
    for notice in (opened, worse):
        book.take(notice, 0)
    assert tell_all(book, 0) == [("opened", False)]
    book.take(closed, 1)
    assert tell_all(book, 1) == [("resolved", False)]
    assert tell_all(book, 2) == []


def test_what_is_over_before_anybody_was_told_is_told_as_a_beginning_and_an_end():
    book = make_book()
    for notice in story():
        book.take(notice, 0)
    assert tell_all(book, 0) == [("opened", False), ("resolved", False)]


def test_what_comes_back_is_the_same_page():
    book = make_book()
    opened, _, closed = story()
    for notice in (opened, closed):
        book.take(notice, 0)
        tell_all(book, 0)
    (before,) = book
    book.take(attrs.evolve(opened, change="updated", reopened=1), 1)
    assert tell_all(book, 1) == [("reopened", False)]
    assert list(book) == [before]


def test_what_comes_back_before_its_end_was_told_tells_nobody():
    book = make_book(resolve_after_ns=900, updates=False)
    opened, _, closed = story()
    book.take(opened, 0)
    assert tell_all(book, 0) == [("opened", False)]
    book.take(closed, 10)
    assert tell_all(book, 20) == []
    book.take(attrs.evolve(opened, change="updated", reopened=1), 30)
    assert tell_all(book, 5000) == []
    book.take(closed, 5000)
    assert tell_all(book, 5899) == []
    assert tell_all(book, 5900) == [("resolved", False)]


def test_numbers_alone_are_told_seldom_and_news_at_once():
    book = make_book(update_every_ns=60)
    opened, worse, _ = story()
    book.take(opened, 0)
    tell_all(book, 0)
    book.take(attrs.evolve(opened, change="updated", alerts=9), 1)
    assert tell_all(book, 59) == []
    book.take(worse, 59)
    assert tell_all(book, 59) == [("worse", False)]
    book.take(explanation(), 59)
    assert tell_all(book, 59) == [("explained", False)]
    book.take(attrs.evolve(worse, change="updated", alerts=99), 60)
    assert tell_all(book, 119) == [("updated", False)]


def test_a_sink_without_updates_is_told_the_beginning_and_the_end():
    book = make_book(updates=False)
    told = []
    for now, notice in enumerate((*story()[:2], explanation(), story()[2])):
        book.take(notice, now)
        told += tell_all(book, now)
    assert told == [("opened", False), ("resolved", False)]


def test_an_explanation_stays_when_newer_numbers_come():
    book = make_book()
    opened, worse, _ = story()
    book.take(opened, 0)
    book.take(explanation(), 0)
    page = book.take(worse, 0)
    assert "92 % sure" in page.message.why
    assert page.message.actions[0].startswith("stop the cron job")


def test_an_incident_that_gets_worse_may_find_its_route_late():
    book = make_book(Route(name="all", min_severity="critical"))
    opened, worse, closed = story()
    assert book.take(opened, 0) is None
    book.take(worse, 0)
    assert tell_all(book, 0) == [("opened", False)]
    book.take(closed, 0)
    assert tell_all(book, 0) == [("resolved", False)]
    assert book.take(explanation("unknown"), 0) is None


# --- a route's limit ----------------------------------------------------------------------


def test_more_than_the_limit_wait_and_what_is_over_by_then_is_counted():
    book = make_book(Route(name="all", per_hour=2))
    for number in range(4):
        book.take(incident(id=f"i{number}", fingerprint=f"f{number}"), number)
    assert len(tell_all(book, 10)) == 2
    assert book.held(10) == 2
    book.take(incident(id="i3", fingerprint="f3", change="closed"), 11)
    assert book.lost["limit"] == 1
    assert tell_all(book, HOUR_NS - 1) == []
    assert tell_all(book, HOUR_NS + 20) == [("opened", False)]


def test_the_limit_outlives_a_restart():
    book = make_book(Route(name="all", per_hour=1))
    book.take(incident(id="i0", fingerprint="f0"), 1)
    tell_all(book, 1)
    again = make_book(Route(name="all", per_hour=1))
    again.load([from_dict(as_dict(page)) for page in book], 10)
    again.take(incident(id="j1", fingerprint="f1", run_id="other"), 10)
    assert tell_all(again, 10) == []


# --- a restart ----------------------------------------------------------------------------


def restarted(book, now_ns, **options):
    again = make_book(**options)
    again.load([from_dict(as_dict(page)) for page in book], now_ns)
    return again


def test_a_new_run_goes_on_with_the_page_of_the_same_fingerprint():
    book = make_book()
    book.take(story()[0], 0)
    tell_all(book, 0)
    again = restarted(book, 10)
    for notice in story("second"):
        again.take(notice, 20)
    assert tell_all(again, 20) == [("resolved", False)]
    assert len(again) == 1


def test_what_is_not_seen_again_is_over():
    book = make_book()
    book.take(story()[0], 0)
    tell_all(book, 0)
    again = restarted(book, 10)
    assert tell_all(again, 10 + ORPHAN_NS - 1) == []
    assert tell_all(again, 10 + ORPHAN_NS) == [("resolved", False)]
    (page,) = again
    assert "not seen again since the agent was restarted" in page.message.remark


def test_what_may_have_arrived_is_told_again_as_such():
    book = make_book()
    book.take(story()[0], 0)
    page, _ = book.next_due(0, {})
    book.begin(page)
    assert tell_all(restarted(book, 1), 1) == [("opened", True)]


def test_what_has_certainly_not_arrived_is_told_as_new():
    book = make_book()
    book.take(story()[0], 0)
    page, _ = book.next_due(0, {})
    message, _ = book.begin(page)
    book.failed(page, message, sure=True, receipt=None, now_ns=0)
    assert tell_all(book, 1) == [("opened", False)]


# --- bounds -------------------------------------------------------------------------------


def test_the_outbox_is_bounded_and_says_what_it_lost():
    book = make_book(limit=16)
    for number in range(40):
        book.take(incident(id=f"i{number}", fingerprint=f"f{number}"), number)
    assert len(book) == 16
    assert book.lost["outbox_full"] == 24


def test_what_is_done_makes_room_first():
    book = make_book(Route(name="all", per_hour=1000), limit=16)
    for number in range(100):
        for change in ("opened", "closed"):
            book.take(incident(id=f"i{number}", fingerprint=f"f{number}", change=change), number)
            tell_all(book, number)
    assert sum(book.lost.values()) == 0
    assert len(book) <= 16
    book.forget(HOUR_NS * 2)
    assert len(book) == 0


def test_what_nobody_could_be_told_of_is_dropped_one_day():
    book = make_book(give_up_ns=100)
    book.take(story()[0], 1)
    assert book.next_due(50, {"": 200})[0] is None
    assert book.next_due(200, {})[0] is None
    assert book.lost["too_old"] == 1


@pytest.mark.parametrize("worse", [False, True])
def test_nobody_hears_that_it_is_back_who_has_not_heard_that_it_was_over(worse):
    book = make_book(resolve_after_ns=900, update_every_ns=60)
    opened, got_worse, closed = story()
    page = book.take(opened, 1)
    message, _ = book.begin(page)
    book.told(page, message, {}, 2)
    book.take(closed, 3)
    book.take(got_worse if worse else attrs.evolve(opened, change="updated", reopened=1), 4)
    assert book.next_due(5, {})[0] is (page if worse else None)  # newer numbers can wait
    assert worse or book.next_due(62, {})[0] is page
    assert book.begin(page)[0].change == ("worse" if worse else "updated")


def test_what_was_told_is_no_news_when_it_comes_back():
    book = make_book(resolve_after_ns=900)
    opened, _, closed = story()
    for notice in (opened, closed):
        book.take(notice, 0)
    assert tell_all(book, 1) == [("opened", False)]
    book.take(attrs.evolve(opened, change="updated", reopened=1), 2)
    assert tell_all(book, 3) == [("updated", False)]


def test_an_end_that_surely_did_not_arrive_is_not_followed_by_that_it_is_back():
    book = make_book()
    opened, _, closed = story()
    page = book.take(opened, 1)
    book.told(page, book.begin(page)[0], {}, 2)
    book.take(closed, 3)
    end, _ = book.begin(page)
    book.take(attrs.evolve(opened, change="updated", reopened=1), 4)
    book.failed(page, end, sure=True, receipt=None, now_ns=5)
    assert book.begin(page)[0].change == "updated"


def test_who_may_have_heard_that_it_was_back_hears_that_it_is_over():
    book = make_book(resolve_after_ns=900)
    opened, _, closed = story()
    back = attrs.evolve(opened, change="updated", reopened=1)
    for now, notice in enumerate((opened, closed)):
        book.take(notice, now)
        tell_all(book, now + 900)
    page = book.take(back, 1000)
    message, _ = book.begin(page)
    book.failed(page, message, sure=False, receipt=None, now_ns=1001)
    book.take(attrs.evolve(closed, reopened=1), 1002)
    book.forget(HOUR_NS)
    assert tell_all(book, 1003) == []
    assert tell_all(book, 1902) == [("resolved", True)]
    assert page.done


# --- routes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "matches"),
    [
        ({"min_severity": "high"}, True),
        ({"min_severity": "critical"}, False),
        ({"classes": ("fork_storm",)}, True),
        ({"classes": ("oom_risk", "none")}, False),
        ({"cgroups": ("/user.slice/*", "/system.slice/*")}, True),
        ({"cgroups": ("/user.slice/*",)}, False),
        ({"labels": {"pod": "pay*"}}, True),
        ({"labels": {"pod": "pay*", "tenant": "*"}}, False),
    ],
    ids=str,
)
def test_a_route_takes_what_matches_all_of_it(route, matches):
    one = incident(labels={"pod": "payments-1"})
    assert Route(name="r", **route).matches(one) is matches


def test_the_first_route_that_matches_decides_and_may_be_silent():
    router = Router((Route(name="a", classes=("oom_risk",)), Route(name="b", tell=False),
                     Route(name="c")))  # fmt: skip
    assert router.choose(incident()) is None
    assert router.choose(incident(class_="oom_risk")).name == "a"
    assert Route(name="n", classes=("none",)).matches(incident(class_=None))


@pytest.mark.parametrize("mistake", [{"name": " "}, {"name": "x", "per_hour": 0}])
def test_a_route_that_cannot_be_is_told(mistake):
    with pytest.raises(ValueError, match=r"^(name|per_hour) must"):
        Route(**mistake)


# --- any order of events ------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 2), st.sampled_from(
            ["opened", "worse", "updated", "closed"])),
        st.tuples(st.sampled_from(["tell", "fail", "unsure", "crash"]), st.none(), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 2 * ORPHAN_NS), st.none()),
    ),
    max_size=40,
)  # fmt: skip


@given(EVENTS, st.booleans())
def test_whatever_happens_people_hear_of_beginning_and_end_in_turn(events, updates):
    """An idempotent service: it takes beginning and end of each page in turn, none is missing."""
    book, now, run = make_book(updates=updates), 0, itertools.count()
    is_open = {}
    of_run = next(run)

    def deliver(page, message):
        opens, before = message.open, is_open.get(page.key, False)
        if message.change in ("opened", "reopened", "resolved") and opens is before:
            assert repeated, (message.change, page)
        is_open[page.key] = opens

    for what, number, change in events:
        now += 1
        if what == "publish":
            book.take(
                incident(id=f"{of_run}-{number}", fingerprint=f"f{number}", change=change,
                         run_id=f"r{of_run}"), now,
            )  # fmt: skip
        elif what == "wait":
            now += number
        elif what == "crash":
            again = make_book(updates=updates)
            again.load([from_dict(as_dict(page)) for page in book], now)
            book, of_run = again, next(run)
        else:
            page, _ = book.next_due(now, {})
            if page is None:
                continue
            message, repeated = book.begin(page)
            if what == "fail":
                book.failed(page, message, sure=not repeated, receipt=None, now_ns=now)
            else:
                deliver(page, message)
                if what == "unsure":
                    book.failed(page, message, sure=False, receipt=None, now_ns=now)
                else:
                    book.told(page, message, {}, now)
    # In the end everything is over, and everybody who was told of a beginning knows.
    again = make_book(updates=updates)
    again.load([from_dict(as_dict(page)) for page in book], now)
    now += 3 * ORPHAN_NS
    while (page := again.next_due(now, {})[0]) is not None:
        message, repeated = again.begin(page)
        deliver(page, message)
        again.told(page, message, {}, now)
    assert not any(is_open.values())


def test_the_words_of_the_records_are_known_to_routes():
    assert Route(name="x", classes=tuple(CLASSES)).matches(incident())
    assert all(Route(name="x", min_severity=severity) for severity in SEVERITIES)
