"""The answer to /attribution: the document, its permalink, and the application that serves it."""

import asyncio
import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from linnix_core import Batch

ROW_KEYS = [
    "offender",
    "offender_pod",
    "offender_namespace",
    "resource",
    "stall_us",
    "attributed_stall_us",
    "blame_score",
    "timestamp",
    "cpu_share",
    "fork_count",
    "short_job_count",
    "event_id",
    "reason",
]


@pytest.fixture
def stall(host, handler):
    """Let /victim wait once for /hog and a little for the pod shop/cart."""
    host.group("/victim")
    host.group("/hog", cpu_percent=60.0)
    host.group("/pods/cart", {"namespace": "shop", "pod": "cart"}, cpu_percent=20.0)
    handler.linnix_handle(Batch(host.pass_time()))

    def stall():
        host.fork("/pods/cart", 10)
        records = host.pass_time(stalls={"/victim": 1_000_000, "/pods/cart": 200_000})
        handler.linnix_handle(Batch([*records, *host.settle()]))
        return host.now_ns // 10**9

    return stall


def follow(handler, document):
    link = urlsplit(document["permalink"])
    assert link.path == "/attribution"
    return handler.attribution(dict(parse_qsl(link.query)))


def test_it_names_the_most_blamed_first(handler, stall):
    at = stall()
    document = handler.attribution({"cgroup": "/victim"})
    assert document["victim"] == {"cgroup": "/victim"}
    assert (document["window_minutes"], document["to"], document["from"]) == (5, at, at - 300)
    hog, cart = document["attributions"]
    assert list(hog) == list(cart) == ROW_KEYS
    assert (hog["offender"], hog["offender_pod"], hog["reason"]) == (
        "/hog",
        None,
        "high_cpu_contention",
    )
    assert (cart["offender"], cart["offender_namespace"], cart["offender_pod"]) == (
        "shop/cart",
        "shop",
        "cart",
    )
    assert (hog["stall_us"], hog["cpu_share"], hog["timestamp"]) == (1_000_000, 0.75, at)
    assert cart["fork_count"] == 10
    assert hog["attributed_stall_us"] == int(1_000_000 * 0.75 / 1.1)
    assert hog["blame_score"] == pytest.approx(0.75)
    assert hog["event_id"] == cart["event_id"]


def test_pods_are_asked_for_by_namespace_and_name(handler, stall):
    stall()
    document = handler.attribution({"pod": "cart", "namespace": "shop"})
    assert document["victim"] == {"pod": "cart", "namespace": "shop"}
    assert [row["offender"] for row in document["attributions"]] == ["/hog"]


def test_a_permalink_shows_the_same_though_time_goes_on(handler, stall):
    stall()
    before = handler.attribution({"cgroup": "/victim", "window": "10"})
    stall()
    assert follow(handler, before) == before
    assert len(handler.attribution({"cgroup": "/victim"})["attributions"]) == 4


def test_what_comes_later_within_the_same_second_is_not_in_a_permalink(handler, stall):
    at = stall()
    before = handler.attribution({"cgroup": "/victim", "to": str(at + 100)})
    stall()
    assert follow(handler, before) == before


def test_a_permalink_survives_hostile_names(host, handler):
    name = "/x&pod=y?\x1b[2J ü#%"
    host.group(name)
    host.group("/hog", cpu_percent=100.0)
    for _ in range(2):
        records = host.pass_time(stalls={name: 1_000_000})
        handler.linnix_handle(Batch([*records, *host.settle()]))
    document = handler.attribution({"cgroup": name})
    assert len(document["attributions"]) == 1
    assert document["permalink"].isascii()
    assert follow(handler, document) == document


def test_both_ends_of_the_time_are_included(handler, stall):
    first = stall()
    stall()
    exactly = {"cgroup": "/victim", "from": str(first), "to": str(first)}
    assert len(handler.attribution(exactly)["attributions"]) == 2
    outside = {"cgroup": "/victim", "from": str(first + 1), "to": str(first + 1)}
    assert handler.attribution(outside)["attributions"] == []


def test_from_and_to_are_stronger_than_the_window(handler, stall):
    at = stall()
    document = handler.attribution(
        {"cgroup": "/victim", "window": "1", "from": str(at - 600), "to": str(at)}
    )
    assert (document["window_minutes"], document["from"]) == (10, at - 600)
    only_to = handler.attribution({"cgroup": "/victim", "window": "2", "to": str(at)})
    assert only_to["from"] == at - 120


def test_one_event_can_be_asked_for(handler, stall):
    stall()
    stall()
    rows = handler.attribution({"cgroup": "/victim"})["attributions"]
    event = rows[0]["event_id"]
    document = handler.attribution({"cgroup": "/victim", "event": event})
    assert [row["event_id"] for row in document["attributions"]] == [event, event]
    assert follow(handler, document) == document


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({}, "name the victim"),
        ({"pod": "cart"}, "name the victim"),
        ({"cgroup": "/a", "pod": "cart", "namespace": "shop"}, "name the victim"),
        ({"cgroup": "/a", "window": "-1"}, "window must be a whole number"),
        ({"cgroup": "/a", "window": "9" * 5000}, "window must be a whole number"),
        ({"cgroup": "/a", "from": "soon"}, "from must be a whole number"),
        ({"cgroup": "/a", "to": "²"}, "to must be a whole number"),
        ({"cgroup": "/a", "from": "9", "to": "8"}, "is later than"),
    ],
)
def test_a_question_without_sense_is_answered_with_a_sentence(handler, query, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        handler.attribution(query)
    assert len(str(caught.value)) < 150


# --- the application ------------------------------------------------------------------------


def ask(app, query=b"", method="GET", **scope):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "query_string": query, **scope}
    asyncio.run(app(scope, None, send))
    start, body = sent
    headers = dict(start["headers"])
    return start["status"], headers, body["body"]


@pytest.fixture
def app(handler):
    (mount,) = handler.linnix_http()
    assert mount.path == "/attribution"
    return mount.app


def test_the_application_answers_with_the_document(handler, app, stall):
    stall()
    status, headers, body = ask(app, b"cgroup=%2Fvictim&window=5")
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    assert int(headers[b"content-length"]) == len(body)
    assert json.loads(body) == handler.attribution({"cgroup": "/victim", "window": "5"})


def test_head_has_no_body(app):
    status, headers, body = ask(app, b"cgroup=/a", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) > 0


@pytest.mark.parametrize("query", [b"", b"cgroup=/a&window=x", b"\xff", b"&".join([b"a=1"] * 50)])
def test_the_mistake_of_a_client_is_its_own(app, query):
    status, _, body = ask(app, query)
    assert status == 400
    assert json.loads(body)["error"]


def test_only_reading_is_possible(app):
    status, headers, _ = ask(app, method="POST")
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_only_http_is_served(app):
    with pytest.raises(RuntimeError, match="websocket"):
        ask(app, type="websocket")
