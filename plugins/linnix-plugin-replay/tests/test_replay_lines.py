"""What lines become: records as they were, or a number and a reason."""

import tempfile
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from linnix_core import (
    CgroupSample,
    Incident,
    Insight,
    Loss,
    Pressure,
    ProcessEvent,
    ProcessSample,
    SystemSample,
    encode,
)
from linnix_core.testing import records as specimens
from linnix_core.testing.trial import Sink
from linnix_plugin_replay import ReplayCollector, ReplayConfig
from linnix_plugin_replay.blocks import read_lines
from linnix_plugin_replay.parts import open_parts

#: How files begin that are refused at the start: compressed, but not by gzip.
REFUSED = (b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")

#: Other programs may keep the machine busy.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- any records --------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
pressures = st.builds(Pressure, floats, numbers, st.none() | floats, st.none() | numbers)
labels = st.none() | st.dictionaries(texts, texts, max_size=3)
common = {
    "ts_ns": st.integers(1, 2**63 - 1),
    "seq": numbers,
    "host": texts,
    "run_id": texts,
    "boot_id": texts,
}


def maybe(strategy, *names):
    return {name: st.none() | strategy for name in names}


def pressure():
    return maybe(pressures, "psi_cpu", "psi_memory", "psi_io")


records = st.one_of(
    st.builds(
        ProcessEvent,
        kind=st.sampled_from(["seen", "fork", "exec", "exit", "oom"]),
        pid=numbers,
        start_ns=numbers,
        comm=texts,
        args=st.none() | st.lists(texts, max_size=3).map(tuple),
        source=st.sampled_from(["kernel", "polled"]),
        truncated=st.booleans(),
        labels=labels,
        **maybe(numbers, "ppid", "parent_start_ns", "uid", "gid", "exit_code", "signal"),
        **maybe(numbers, "duration_ns", "cpu_ns", "max_rss_bytes"),
        **maybe(texts, "exe", "cwd", "cgroup"),
        **common,
    ),
    st.builds(
        ProcessSample,
        pid=numbers,
        start_ns=numbers,
        interval_ns=numbers,
        comm=texts,
        labels=labels,
        **maybe(floats, "cpu_percent"),
        **maybe(numbers, "rss_bytes", "threads", "fds", "read_bytes", "write_bytes"),
        **maybe(texts, "state", "cgroup"),
        **common,
    ),
    st.builds(
        CgroupSample,
        cgroup=texts,
        interval_ns=numbers,
        labels=labels,
        memory_events=st.none() | st.dictionaries(texts, numbers, max_size=3),
        **maybe(floats, "cpu_percent"),
        **maybe(numbers, "throttled_ns", "memory_bytes", "memory_limit_bytes"),
        **pressure(),
        **common,
    ),
    st.builds(
        SystemSample,
        interval_ns=numbers,
        **maybe(floats, "cpu_percent", "load1", "disk_read_bytes_per_s"),
        **maybe(numbers, "cpus", "memory_total_bytes", "processes"),
        **pressure(),
        **common,
    ),
    st.builds(
        Loss,
        component=texts,
        why=texts,
        lost=numbers,
        lost_total=numbers,
        window_ns=numbers,
        **maybe(numbers, "emitted", "received", "handled", "dropped", "queued"),
        **common,
    ),
)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What becomes of the bytes of a file; may be asked many times in one test."""
    import logging

    from linnix_core import Context, ProcessView

    folder = tmp_path_factory.mktemp("lines")
    context = Context(
        component="collectors.replay",
        logger=logging.getLogger("linnix.collectors.replay"),
        processes=ProcessView(),
        incidents=None,
        data_dir=folder,
    )

    def play(contents):
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            Path(file.name).write_bytes(contents)
            sink = Sink()
            collector = ReplayCollector(ReplayConfig(path=Path(file.name)), context)
            collector.linnix_start()
            collector.linnix_collect(sink, threading.Event())
            sink.limits = collector.linnix_health().limits
        return sink

    return play


@patiently
@given(st.lists(records, max_size=20))
def test_any_records_are_played_as_they_were(played, recorded):
    sink = played(b"".join(encode(record) + b"\n" for record in recorded))
    assert sink.records == recorded
    assert list(map(type, sink.records)) == list(map(type, recorded))
    assert sink.losses == []


@patiently
@given(st.lists(records, min_size=1, max_size=5), st.data())
def test_a_recording_that_breaks_off_loses_its_last_line_only(played, recorded, data):
    lines = [encode(record) + b"\n" for record in recorded]
    kept = data.draw(st.integers(1, len(lines[-1]) - 2), label="bytes of the last line")
    sink = played(b"".join(lines[:-1]) + lines[-1][:kept])
    assert sink.records == recorded[:-1]
    assert sink.losses == [("unreadable", 1)]


@patiently
@given(st.sampled_from([b"", b"\n", b"\x1f\x8b", b"\x1f\x8b\x08\0"]), st.binary(max_size=400))
def test_no_bytes_whatever_break_it(played, begin, contents):
    assume(begin or not contents.startswith(REFUSED))
    assert played(begin + contents).records == []


@patiently
@given(st.lists(st.one_of(records, st.binary(max_size=60)), max_size=12))
def test_what_is_no_record_costs_nothing_but_itself(played, mixed):
    good = [encode(line) for line in mixed if not isinstance(line, bytes)]
    lines = [
        line.replace(b"\n", b"") if isinstance(line, bytes) else encode(line) for line in mixed
    ]
    sink = played(b"\n".join([b"", *lines]))
    assert list(map(encode, sink.records)) == good
    rest = sum(bool(line.strip(b" \t\r\x0b\x0c")) for line in lines) - len(good)
    assert sum(count for _, count in sink.losses) == rest


@pytest.mark.parametrize("made", [specimens.bare_records, specimens.hostile_records])
def test_records_at_the_limits_are_played_as_they_were(made, played, lines_of):
    assert played(lines_of(made())).records == made()


def test_the_last_line_needs_no_end(played, lines_of, event):
    records = [event(), event()]
    assert played(lines_of(records).removesuffix(b"\n")).records == records


def test_empty_lines_and_other_line_ends_are_nothing_special(played, lines_of, event):
    records = [event(), event()]
    sink = played(b"\n\r\n" + lines_of(records).replace(b"\n", b"\r\n") + b"\n")
    assert (sink.records, sink.losses) == (records, [])


def test_a_key_of_a_later_version_is_passed_over(played, lines_of, event):
    record = event()
    line = lines_of([record]).replace(b"{", b'{"from_the_future":[1],', 1)
    assert played(line).records == [record]


def test_a_key_that_an_earlier_version_did_not_have_is_not_known(played):
    (record,) = played(b'{"type":"event","kind":"fork","pid":7,"start_ns":0,"ts_ns":5}').records
    assert record == ProcessEvent("fork", 7, 0, ts_ns=5)


# --- results ------------------------------------------------------------------------------


def test_what_came_of_it_then_is_counted_and_not_played(
    write, lines_of, event, play, tmp_path, logged
):
    notices = [*specimens.alerts()[:3], *specimens.incidents()[:2], *specimens.insights()[:1]]
    assert {type(notice) for notice in notices} > {Incident, Insight}
    (tmp_path / "x.jsonl").write_bytes(lines_of([event(seq=1), *notices, event(seq=2)]))
    sink = play(tmp_path / "x.jsonl")
    assert [record.seq for record in sink.records] == [1, 2]
    assert sink.losses == []
    said = "played 2 records, and not 6 notices, which are results of then"
    assert said in sink.limits
    assert ("INFO", said) in logged


# --- what cannot be read ------------------------------------------------------------------

GOOD = b'"kind":"fork","pid":7,"start_ns":0,"ts_ns":5}'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"type":"event","ki', "truncated"),
        (b"hello", "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `type`"),
        (b'{"type":"dream",' + GOOD, "'dream' is no type of record"),
        (b'{"type":"event","kind":"fork","start_ns":0,"ts_ns":5}', "missing required field `pid`"),
        (b'{"type":"event","pid":"7",' + GOOD.replace(b'"pid":7,', b""), "Expected `int`"),
        (b'{"type":"event","kind":"nap",' + GOOD.removeprefix(b'"kind":"fork",'), "'nap'"),
        (b'{"type":"event","comm":"\xff",' + GOOD, "utf-8"),
        (b'{"type":"event","kind":"fork","pid":7,"start_ns":0}', "ts_ns is missing or no time"),
        (b'{"type":"event",' + GOOD.replace(b":5", b":-5"), "ts_ns is missing or no time"),
        (b'{"type":"event",' + GOOD.replace(b":5", b":" + b"9" * 400), "no time"),
        (b'{"type":"event","pid":' + b"9" * 100_000, ""),
        (b'{"type":"event","x":' + b"[" * 100_000, "nested too deeply"),
        (b'{"type":"alert","x":' + b"[" * 100_000, "nested too deeply"),
        (b'{"type":"alert"}', "missing required field"),
        (b"\0" * 1000, "malformed"),
        (b'{"type":"event","comm":"' + b"x" * 2**20 + b'",' + GOOD, "longer than 1048576 bytes"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else "",
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_counted_and_named(
    line, why, tmp_path, lines_of, event, play, logged
):
    file = tmp_path / "x.jsonl"
    file.write_bytes(
        lines_of([event(seq=1), event(seq=2)]) + line + b"\n" + lines_of([event(seq=3)])
    )
    sink = play(file)
    assert [record.seq for record in sink.records] == [1, 2, 3]
    assert sink.losses == [("unreadable", 1)]
    (limit,) = sink.limits
    assert limit.startswith(f"lines that could not be read: 1, the first is {file} line 3: ")
    assert why in limit
    assert len(limit) < 500
    assert ("WARNING", limit) in logged


def test_the_first_of_several_is_named(tmp_path, play):
    (tmp_path / "x.jsonl.1").write_bytes(b"\n\nbroken\n")
    (tmp_path / "x.jsonl").write_bytes(b"broken too\nand this")
    sink = play(tmp_path / "x.jsonl")
    assert sink.losses == [("unreadable", 3)]
    assert "lines that could not be read: 3" in sink.limits[0]
    assert f"{tmp_path / 'x.jsonl.1'} line 3: " in sink.limits[0]


def test_a_hostile_reason_is_shown_harmless(tmp_path, play):
    (tmp_path / "x.jsonl").write_bytes('{"type":"\\u001b[2J\u202e"}'.encode())
    (limit,) = play(tmp_path / "x.jsonl").limits
    assert limit.isprintable()


def test_losses_come_after_the_records(tmp_path, lines_of, event, make_collector):
    # They are stamped with the time of today, and rules follow the time of the records.
    order = []

    class Noting:
        def emit_many(self, records):
            order.append("records")

        def lost(self, why, count):
            order.append((why, count))

    file = tmp_path / "x.jsonl"
    file.write_bytes(b"broken\n" + lines_of([event() for _ in range(5000)]))
    collector = make_collector(file)
    collector.linnix_start()
    collector.linnix_collect(Noting(), threading.Event())
    assert order.count("records") > 1
    assert order.index(("unreadable", 1)) == len(order) - 1


# --- what is not even there ---------------------------------------------------------------


def test_records_that_the_recording_does_not_have_are_counted(write, event, play, logged):
    numbers = [3, 4, 7, 8, 6, 20]
    sink = play(write("x.jsonl", [event(seq=number) for number in numbers]))
    (limit,) = sink.limits
    assert limit.startswith("records that are missing in the recording: 12,")
    assert ("WARNING", limit) in logged


def test_results_are_among_what_is_there(tmp_path, lines_of, event, play):
    alerts = specimens.alerts()[:1]
    alerts[0].seq, alerts[0].run_id = 2, "a-run"
    (tmp_path / "x.jsonl").write_bytes(lines_of([event(seq=1), event(seq=3), *alerts]))
    assert not any("missing" in limit for limit in play(tmp_path / "x.jsonl").limits)


def test_each_run_has_numbers_of_its_own(write, event, play):
    runs = [("a", 1), ("a", 3), ("b", 1), ("b", 2), ("c", 5), ("c", 7)]
    sink = play(write("x.jsonl", [event(seq=seq, run_id=run_id) for run_id, seq in runs]))
    (limit,) = sink.limits
    assert limit.startswith("records that are missing in the recording: 2,")


# --- memory -------------------------------------------------------------------------------


def peak_bytes(collector):
    class Nowhere:
        def emit_many(self, records):
            pass

        def lost(self, why, count):
            pass

    collector.linnix_start()
    tracemalloc.start()
    try:
        collector.linnix_collect(Nowhere(), threading.Event())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_line_of_any_length_takes_bounded_memory(tmp_path, make_collector):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"type":"event","comm":"' + b"x" * 40_000_000 + b'"}\n')
    assert peak_bytes(make_collector(file)) < 12_000_000


def test_a_file_of_any_length_takes_bounded_memory(tmp_path, make_collector, linnix_records):
    lines = b"".join(encode(record) + b"\n" for record in linnix_records(1000))
    file = tmp_path / "x.jsonl"
    file.write_bytes(lines * 30)
    assert file.stat().st_size > 12_000_000
    assert peak_bytes(make_collector(file)) < 6_000_000


PIECES = (b"\n", b"a", b"bc" * 200_000, b"d" * 1_100_000)


@patiently
@given(st.lists(st.integers(0, 3), max_size=12))
def test_lines_come_as_they_are_or_too_long(tmp_path_factory, chosen):
    contents = b"".join(PIECES[index] for index in chosen)
    with tempfile.NamedTemporaryFile(dir=tmp_path_factory.getbasetemp()) as file:
        Path(file.name).write_bytes(contents)
        (part,) = open_parts(Path(file.name), rotated=False)
        try:
            lines = [line for block in read_lines(part, threading.Event()) for line in block]
        finally:
            part.close()
    expected = contents.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert len(lines) == len(expected)
    for line, whole in zip(lines, expected, strict=True):
        assert line == whole if len(whole) <= 2**20 else len(line) > 2**20
