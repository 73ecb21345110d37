"""The stream: what is read, replayed, missed, and how it ends."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import attrs
import pytest
from http_client import PATIENCE_S, Alarm, Reader, family, handler_of
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    Batch,
    CgroupSample,
    Insight,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    SystemSample,
    decode,
    encode,
    hookimpl,
)
from linnix_core.testing.waiting import eventually
from linnix_plugin_http.stream import Filter, Stream, frame


def events(count, first=1, **more):
    return [
        ProcessEvent(
            "fork", pid=n, start_ns=n * 10_000_000, comm="x", seq=n, ts_ns=n, run_id="r", **more
        )
        for n in range(first, first + count)
    ]


def names(found):
    return [each["event"] for each in found]


# --- over the wire ----------------------------------------------------------------------


def test_events_come_with_their_name_and_number(serve):
    agent, client = serve()
    with Reader(client, "/stream") as reader:
        (hello,) = reader.events(1)
        assert hello["retry"] == "2000"
        assert hello["data"] == {
            "run_id": agent.run_id,
            "host": "testhost",
            "newest": 0,
            "oldest": None,
        }
        handler_of(agent).linnix_handle(Batch(events(3)))
        found = reader.events(3)
    assert [each["id"] for each in found] == ["1", "2", "3"]
    assert names(found) == ["fork"] * 3
    assert found[0]["data"]["pid"] == 1
    assert found[0]["data"]["event_type"] == 1
    assert found[0]["data"]["event_type_name"] == "fork"


def test_a_client_that_comes_back_misses_nothing(serve):
    _, client = serve(family())
    with Reader(client, "/stream", **{"Last-Event-ID": "2"}) as reader:
        found = reader.events(4)
    assert names(found) == ["hello", "fork", "fork", "fork"]
    assert [each["id"] for each in found[1:]] == ["3", "4", "5"]


def test_who_has_read_nothing_yet_comes_back_to_where_it_began(serve):
    agent, client = serve(family())
    with Reader(client, "/stream?type=fork") as reader:
        (hello,) = reader.events(1)
    handler_of(agent).linnix_handle(Batch(events(2, int(hello["id"]) + 1)))
    with Reader(client, "/stream?type=fork", **{"Last-Event-ID": hello["id"]}) as reader:
        again, *found = reader.events(3)
    # Who is cut off now has had nothing of it.
    assert "id" not in again
    assert [int(each["id"]) - int(hello["id"]) for each in found] == [1, 2]


def test_a_sign_of_life_says_how_far_a_reader_is_who_wanted_none_of_it(serve):
    agent, client = serve(http={"keep_alive": 1})
    with Reader(client, "/stream?type=alert") as reader:
        assert reader.event()["id"] == "0"
        handler_of(agent).linnix_handle(Batch(events(3)))
        eventually(lambda: reader.event() and reader.last_id == "3")


def test_a_client_that_sets_no_headers_comes_back_by_its_query(serve):
    _, client = serve(family())
    with Reader(client, "/events?last_event_id=4") as reader:
        assert [each.get("id") for each in reader.events(2)] == [None, "5"]


def test_what_the_history_no_longer_has_is_said(serve):
    agent, client = serve(http={"history": 10})
    for start in range(1, 51, 5):
        handler_of(agent).linnix_handle(Batch(events(5, start)))
    with Reader(client, "/stream", **{"Last-Event-ID": "7"}) as reader:
        hello, lost, *found = reader.events(12)
    assert hello["data"]["oldest"] == 41
    assert hello["data"]["newest"] == 50
    assert lost["event"] == "lost"
    assert lost["data"] == {"after": 7, "lost": 33, "why": "no longer in the history"}
    assert [int(each["id"]) for each in found] == list(range(41, 51))


def test_a_client_of_another_run_is_told_so(serve):
    _, client = serve(family())
    with Reader(client, "/stream", **{"Last-Event-ID": "100000"}) as reader:
        _, lost, first = reader.events(3)
    assert lost["data"] == {"after": 100000, "lost": None, "why": "another run"}
    assert first["id"] == "1"
    with Reader(client, "/stream?run=other&last_event_id=3") as reader:
        assert names(reader.events(3)) == ["hello", "lost", "seen"]


def test_filters_choose_what_is_read(serve):
    records = [*family(), SystemSample(interval_ns=1)]
    _, client = serve(records, handlers={"alarm": Alarm})
    for query, expected in (
        ("", ["seen", "fork", "fork", "fork", "fork"]),
        ("&type=seen", ["seen"]),
        ("&type=system,seen", ["seen", "system", "system"]),
        ("&type=alert", ["alert"]),
        ("&type=alert&pid=11", ["alert"]),
        ("&type=event,alert&pid=11,10", ["fork", "fork", "alert"]),
        ("&type=all&comm=worker", ["fork", "fork", "alert", "incident"]),
        ("&comm=*r", ["fork", "fork", "fork"]),
        ("&cgroup=/system.slice/sh.service", ["fork"]),
        ("&cgroup=/system.slice", ["seen", "fork", "fork", "fork", "fork"]),
        ("&cgroup=/system.slice/w*", ["fork", "fork"]),
        ("&cgroup=/system", []),
        ("&type=system&pid=11", []),
    ):
        with Reader(client, f"/stream?last_event_id=0{query}") as reader:
            found = reader.events(1 + len(expected))[1:]
        assert names(found) == expected, query


def test_what_is_no_filter_is_refused(serve):
    _, client = serve()
    for path in (
        "/stream?type=nosuch",
        "/stream?type=,",
        "/stream?pid=one",
        "/stream?pid=1,,2",
        "/stream?last_event_id=x",
        "/stream?last_event_id=%D9%A1",
        f"/stream?comm={'x' * 300}",
    ):
        assert client.refused(path)[0] == 400, path


def test_alerts_have_a_stream_of_their_own(serve):
    _, client = serve(family(), handlers={"alarm": Alarm})
    with Reader(client, "/alerts?last_event_id=0") as reader:
        _, alert = reader.events(2)
    assert alert["event"] == "alert"
    assert alert["data"]["rule"] == "busy"
    assert int(alert["id"]) == alert["data"]["seq"]


def test_samples_come_while_somebody_reads_them(serve):
    agent, client = serve()
    handler = handler_of(agent)
    sample = ProcessSample(pid=1, start_ns=0, interval_ns=1, seq=1)
    handler.linnix_handle(Batch([sample]))
    with Reader(client, "/stream?type=sample") as reader:
        (hello,) = reader.events(1)
        assert hello["data"]["oldest"] is None
        handler.linnix_handle(Batch([attrs.evolve(sample, seq=2), *events(1, 3)]))
        (found,) = reader.events(1)
    assert (found["event"], found["id"]) == ("sample", "2")


def test_a_quiet_stream_shows_signs_of_life(serve):
    _, client = serve(http={"keep_alive": 1})
    with Reader(client, "/stream") as reader:
        assert reader.event()["event"] == "hello"
        assert reader.event()["comment"] == ": keep-alive"


def test_a_stream_is_quiet_where_all_that_comes_is_for_others(serve):
    agent, client = serve(http={"keep_alive": 1})
    handler, read = handler_of(agent), threading.Event()

    def work():
        while not read.wait(0.05):
            handler.linnix_handle(Batch(events(1)))

    worker = threading.Thread(target=work)
    with Reader(client, "/stream?type=alert") as reader:
        assert reader.event()["event"] == "hello"
        worker.start()
        try:
            assert reader.event()["comment"] == ": keep-alive"
        finally:
            read.set()
            worker.join()


def test_stopping_says_goodbye_after_everything_else(serve):
    agent, client = serve()
    with Reader(client, "/stream") as reader, Reader(client, "/processes/live") as living:
        assert names(reader.events(1)) == ["hello"]
        assert names(living.events(1)) == ["processes"]
        handler_of(agent).linnix_handle(Batch(events(500)))
        agent.stop()
        found, last = reader.rest(), living.rest()
    assert len(found) == 501
    assert found[-1]["event"] == last[-1]["event"] == "bye"
    with pytest.raises(ConnectionRefusedError):
        client.get("/healthz")


def test_stopping_does_not_wait_for_a_reader_that_reads_nothing(serve):
    agent, client = serve(http={"history": 100_000})
    with Reader(client, "/stream"):
        for start in range(1, 30_000, 1000):
            handler_of(agent).linnix_handle(Batch(events(1000, start, args=("x" * 500,))))
        handler = handler_of(agent)
        before = time.monotonic()
        handler.linnix_stop(before + 10)
        assert not [t for t in threading.enumerate() if t.name == "linnix-http"]


def test_a_slow_reader_is_cut_off_and_costs_nobody_else_anything(serve):
    agent, client = serve(http={"history": 2000})
    handler = handler_of(agent)
    slow = socket.create_connection((client.host, client.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with slow, Reader(client, "/stream") as quick:
        quick.events(1)
        slow.sendall(f"GET /stream HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        eventually(lambda: len(handler._stream) == 2)
        sent = 0
        while not handler._stream.dropped_subscribers:
            handler.linnix_handle(Batch(events(500, sent + 1, args=("y" * 1000,))))
            sent += 500
            found = quick.events(500)
            assert found[-1]["id"] == str(sent)
            assert sent < 200_000
        eventually(lambda: len(handler._stream) == 1)
        report = client.get("/loss")["stream"]
        assert report["dropped_subscribers"] == 1
        assert report["lost_records"] > 0
    metrics = {metric.name: metric.value for metric in handler.linnix_metrics()}
    assert metrics["http_dropped_subscribers"] == 1
    assert metrics["http_stream_lost_records"] == report["lost_records"]


def test_a_hundred_subscribers_lose_nothing(serve):
    agent, client = serve(http={"history": 20_000})
    handler = handler_of(agent)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Reader(client, "/stream")) for _ in range(100)]
        for reader in readers:
            reader.events(1)
        for start in range(1, 1001, 50):
            handler.linnix_handle(Batch(events(50, start)))
        for reader in readers:
            assert reader.numbers(until=1000) == list(range(1, 1001))


def test_one_subscriber_too_many_is_refused(serve):
    agent, client = serve(http={"max_subscribers": 2})
    with Reader(client, "/stream") as one:
        with Reader(client, "/processes/live"):
            one.events(1)
            eventually(lambda: len(handler_of(agent)._stream) == 2)
            assert client.refused("/stream")[0] == 503
            assert client.refused("/alerts")[0] == 503
            assert client.refused("/processes/live")[0] == 503
            assert client.get("/status")["subscribers"] == 2
        eventually(lambda: len(handler_of(agent)._stream) == 1)
        with Reader(client, "/stream") as another:
            assert names(another.events(1)) == ["hello"]


def test_hostile_names_stay_on_their_line(serve):
    agent, client = serve()
    comm = "a\nevent: bye\r\n\r\ndata: {}\u2028\x00\x1b[2J"
    with Reader(client, "/stream") as reader:
        reader.events(1)
        handler_of(agent).linnix_handle(Batch([attrs.evolve(events(1)[0], comm=comm)]))
        (found,) = reader.events(1)
    assert found["event"] == "fork"
    assert found["data"]["comm"] == comm


def test_a_client_that_leaves_is_forgotten(serve):
    agent, client = serve()
    with Reader(client, "/stream") as reader:
        reader.events(1)
        assert len(handler_of(agent)._stream) == 1
    eventually(lambda: len(handler_of(agent)._stream) == 0)


def test_head_of_a_stream_ends(serve):
    _, client = serve()
    status, headers, body = client.request("HEAD", "/stream")
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")


# --- frames -----------------------------------------------------------------------------


def parsed(chunk):
    lines = chunk.decode().split("\n")
    assert lines[-2:] == ["", ""]
    fields = dict(line.split(": ", 1) for line in lines[:-2])
    return fields, json.loads(fields["data"])


@given(st.text(), st.lists(st.text(), max_size=3), st.sampled_from(["exec", "exit", "oom"]))
def test_a_frame_is_three_lines_whatever_a_process_chose(comm, args, kind):
    try:
        (comm + "".join(args)).encode()
    except UnicodeEncodeError:
        return  # the core lets none of these in
    event = ProcessEvent(kind, pid=1, start_ns=0, comm=comm, args=tuple(args), seq=9, ts_ns=5)
    fields, data = parsed(frame(event))
    assert list(fields) == ["id", "event", "data"]
    assert (fields["id"], fields["event"]) == ("9", kind)
    assert data["comm"] == comm
    assert data["args"] == args
    assert data["exit_time_ns"] == (5 if kind == "exit" else 0)
    ours = {key: value for key, value in data.items() if key in json.loads(encode(event))}
    assert decode(json.dumps(ours)) == event


def test_every_other_record_is_framed_as_it_is():
    for record in (
        CgroupSample(cgroup="/a", interval_ns=1, seq=3),
        Alert(rule="r", severity="low", message="m\nn", seq=3),
        Insight("normal", 0.5, None, "why", (), seq=3),
    ):
        fields, data = parsed(frame(record))
        assert fields["event"] == record.type
        assert fields["id"] == "3"
        assert data == json.loads(encode(record))


# --- filters ----------------------------------------------------------------------------


def test_alerts_are_filtered_by_whom_they_are_about():
    alert = Alert(
        rule="r",
        severity="low",
        message="m",
        subject=Subject(key=ProcessKey("b", 7, 0), comm="java", cgroup="/app/web"),
    )
    types = frozenset({"alert"})
    assert Filter(types)(alert)
    assert Filter(types, pids=frozenset({7}))(alert)
    assert not Filter(types, pids=frozenset({8}))(alert)
    assert Filter(types, comm="j*a")(alert)
    assert not Filter(types, comm="j")(alert)
    assert Filter(types, cgroup="/app")(alert)
    assert Filter(types, cgroup="/app/")(alert)
    assert not Filter(types, cgroup="/ap")(alert)
    assert not Filter(types, cgroup="/app")(Alert(rule="r", severity="low", message="m"))
    assert not Filter(types, pids=frozenset({7}))(Alert(rule="r", severity="low", message="m"))


def test_wildcards_do_not_cost_more_than_they_are_worth():
    wanted = Filter(frozenset({"event"}), comm="*a" * 100 + "b")
    (event,) = events(1)
    assert not wanted(attrs.evolve(event, comm="a" * 64))


# --- the history ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=40), st.integers(1, 30), st.integers(0, 150))
def test_a_reader_gets_everything_after_its_place_or_hears_what_is_missing(sizes, limit, last_id):
    async def read():
        stream = Stream(limit)
        number = 1
        for size in sizes:
            stream.publish(events(size, number))
            number += size
        newest = number - 1
        began = stream.subscribe(Filter(), last_id)
        seen = [
            int(line[4:])
            for line in stream.take(began.subscriber).split(b"\n")
            if line.startswith(b"id: ")
        ]
        assert seen == sorted(set(seen))
        assert stream.take(began.subscriber) == b""
        assert len(seen) <= max(limit, max(sizes, default=0))
        if last_id > newest:
            assert began.lost is None
            assert seen == list(range(began.oldest or 1, newest + 1))
        else:
            assert began.lost + len(seen) == newest - last_id
            assert seen == list(range(newest - len(seen) + 1, newest + 1))
        stream.unsubscribe(began.subscriber)
        assert len(stream) == 0

    asyncio.run(read())


def test_writers_in_many_threads_lose_nothing():
    """The stream of one handler has one writer; the history holds even with several."""

    async def read():
        stream = Stream(100_000)
        stream.open()
        reader = stream.subscribe(Filter(), None).subscriber
        threads = [
            threading.Thread(
                target=lambda base: [stream.publish(events(3, base + 3 * n)) for n in range(200)],
                args=(base,),
            )
            for base in (1, 10_000, 20_000)
        ]
        for thread in threads:
            thread.start()
        seen: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(seen) < 1800:
                await reader.wake.wait()
                reader.wake.clear()
                while chunk := stream.take(reader):
                    seen += [int(x[4:]) for x in chunk.split(b"\n") if x.startswith(b"id: ")]
        for thread in threads:
            thread.join()
        assert len(set(seen)) == 1800

    asyncio.run(read())


def test_nothing_is_encoded_while_nobody_reads(monkeypatch):
    import linnix_plugin_http.stream as module

    made = []
    monkeypatch.setattr(module, "encode", lambda record: made.append(record) or b"{}")

    async def read():
        stream = Stream(100)
        stream.publish(events(10))
        assert made == []
        readers = [stream.subscribe(Filter(), 0).subscriber for _ in range(5)]
        for reader in readers:
            stream.take(reader)
        # Narrower ones use what is there.
        stream.take(stream.subscribe(Filter(comm="x"), 0).subscriber)
        assert len(made) == 10

    asyncio.run(read())


class Told:
    """A collector that emits what a test puts into it."""

    @hookimpl
    def linnix_poll(self):
        return events(1)


def test_records_of_a_real_run_arrive(serve):
    _, client = serve(collectors={"told": Told}, options={"collectors.told": {"interval": 0.05}})
    with Reader(client, "/stream") as reader:
        found = [each for each in reader.events(4) if each["event"] == "fork"]
    numbers = [int(each["id"]) for each in found]
    assert numbers == sorted(set(numbers))


def test_those_who_come_back_at_many_places_cost_little_memory():
    async def read():
        stream = Stream(10_000)
        stream.publish(events(5000, args=("x" * 500,)))
        for place in range(0, 5000, 50):
            stream.take(stream.subscribe(Filter(), place).subscriber)
        assert len(stream._shared) <= 32

    asyncio.run(read())
