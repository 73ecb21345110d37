"""An incident as one file: what was asked about it, so that it can be judged again."""

from __future__ import annotations

import json
import os
import re
import stat

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import (
    CLASSES,
    Alert,
    Answer,
    Bundle,
    Evidence,
    LinnixError,
    Subject,
    SystemSample,
    bundle_of,
    dump_bundle,
    load_bundle,
    read_bundle,
    write_bundle,
)
from linnix_core.bundle import MAX_BYTES
from linnix_core.grounding import ground
from linnix_core.incidents import IncidentBook
from linnix_core.reasoning import build_request
from linnix_core.surroundings import Surroundings
from linnix_core.testing import records as specimens
from linnix_core.testing.injections import injected
from linnix_core.testing.records import reason_request


@pytest.fixture
def bundle():
    request = reason_request("fork_storm")
    insight = ground(request, Answer("fork_storm", 80, "P1", ("f1",), ("a1",)), "heuristics")
    alert = Alert("fork_storm", "high", "message", "fork_storm", request.incident.subject)
    return Bundle(request, (alert,), insight)


@pytest.mark.parametrize("class_", CLASSES)
def test_what_is_read_is_what_was_written(class_, tmp_path):
    request = reason_request(class_)
    alerts = tuple(specimens.alerts())
    insight = ground(request, Answer(class_, 80, "P1", ("f1",), ("a1",)), "heuristics")
    written = Bundle(request, alerts, insight)
    write_bundle(written, tmp_path / "incident.json")
    assert read_bundle(tmp_path / "incident.json") == written
    assert load_bundle(dump_bundle(Bundle(request))) == Bundle(request)


def test_hostile_names_survive_and_control_no_terminal():
    for order, request in injected(reason_request("cpu_spin")):
        data = dump_bundle(Bundle(request))
        assert load_bundle(data).request == request, order
        assert data.isascii()
        assert b"\x1b" not in data
        assert b"\x7f" not in data


def test_the_document_says_what_it_is(bundle):
    document = json.loads(dump_bundle(bundle))
    assert (document["type"], document["schema"]) == ("bundle", 1)
    assert list(document) == ["type", "schema", "linnix", "request", "alerts", "insight"]
    assert set(document["request"]) == {
        "incident", "facts", "processes", "actions", "classes", "timeout_s",
    }  # fmt: skip
    assert document["request"]["incident"]["class"] == "fork_storm"
    assert document["request"]["processes"][0]["key"].keys() == {"boot_id", "pid", "start_ns"}


def test_a_file_is_its_owners_alone_and_replaces_another_as_a_whole(bundle, tmp_path):
    path = tmp_path / "incident.json"
    path.write_text("before")
    write_bundle(bundle, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["incident.json"]


def test_a_link_stays_one_and_a_pipe_is_written_to(bundle, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("target")
    write_bundle(bundle, link)
    assert link.is_symlink()
    assert read_bundle(tmp_path / "target") == bundle
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_bundle(bundle, pipe)
        assert os.read(reader, 1) == b"{"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_where_it_cannot_be_written_that_is_said(bundle, tmp_path):
    with pytest.raises(LinnixError, match=r"cannot write .*incident.json: .*No such file"):
        write_bundle(bundle, tmp_path / "missing" / "incident.json")


# --- what is no bundle --------------------------------------------------------------------


def changed(bundle, change):
    document = json.loads(dump_bundle(bundle))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(type="alert"), "not a bundle"),
        (lambda d: d.update(schema=2), "schema 2 is not 1"),
        (lambda d: d.update(more=1), "`more`"),
        (lambda d: d.pop("request"), "`request`"),
        (lambda d: d["request"].update(more=1), "`more`"),
        (lambda d: d["request"].update(classes=["disaster"]), "disaster"),
        (lambda d: d["request"].update(timeout_s=0), "timeout_s cannot be 0"),
        (lambda d: d["request"]["facts"][1].update(id="f1"), "the id 'f1' should be f2"),
        (lambda d: d["request"]["facts"][0].update(value="1"), "$.request.facts[0].value"),
        (lambda d: d["request"]["facts"][0].update(value=2**63), "fact f1 is out of range"),
        (lambda d: d["request"]["facts"][0].update(process="P99"), "of 'P99', which was not given"),
        (lambda d: d["request"]["processes"][0].update(id="P7"), "the id 'P7' should be P1"),
        (lambda d: d["request"]["processes"][0]["key"].update(pid="1"), "processes[0].key.pid"),
        (lambda d: d["request"]["actions"][0].pop("text"), "`text`"),
        (lambda d: d["request"]["incident"].update(severity="huge"), "incident: "),
        (lambda d: d["request"].update(incident={"type": "alert"}), "incident: "),
        (lambda d: d["request"].update(incident=d["alerts"][0]), "incident is Alert, not Incident"),
        (lambda d: d["alerts"].append(d["insight"]), "alerts[1] is Insight, not Alert"),
        (lambda d: d["alerts"].append({}), "alerts[1]: "),
        (lambda d: d.update(insight=d["alerts"][0]), "insight is Alert, not Insight"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(bundle, change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        load_bundle(changed(bundle, change))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "not a bundle"),
        (b"null", "not a bundle"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (MAX_BYTES + 1), "bytes are no bundle"),
    ],
)
def test_what_is_no_bundle_is_refused(data, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        load_bundle(data)
    path = tmp_path / "bundle.json"
    path.write_bytes(data)
    with pytest.raises(LinnixError, match=r"cannot read .*bundle.json as a bundle: "):
        read_bundle(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LinnixError, match=r"cannot read .*none.json as a bundle: .*No such file"):
        read_bundle(tmp_path / "none.json")


DOCUMENT = dump_bundle(Bundle(reason_request("oom_risk")))


@given(place=st.integers(0, len(DOCUMENT) - 1), what=st.binary(max_size=8), cut=st.integers(0, 40))
def test_a_spoilt_file_is_a_bundle_or_refused(place, what, cut):
    try:
        spoilt = load_bundle(DOCUMENT[:place] + what + DOCUMENT[place + cut :])
    except ValueError:
        return
    # Whatever it is now, it can be asked about and answered.
    request = spoilt.request
    answer = Answer("normal", 1, None, tuple(f.id for f in request.facts[:1]))
    if request.facts:
        assert ground(request, answer, "mine").grounded


# --- from history -------------------------------------------------------------------------


def test_a_bundle_of_history_is_the_request_of_the_run():
    """The records up to an alert say as much later as they did then."""
    records = specimens.realistic_records(2_000, seed=3)
    table, surroundings = specimens.ProcessTable(), Surroundings()
    table.update(records)
    surroundings.update(records)
    last_ns = max(record.ts_ns for record in records)
    subject = next(p for p in table.view if p.sample is not None)
    alert = Alert(
        "fork_storm", "high", "many forks", "fork_storm",
        Subject(subject.key, subject.exe, subject.comm, subject.cgroup),
        (Evidence("forks", 812, "forks"),), ts_ns=last_ns, id="a1",
    )  # fmt: skip
    book = IncidentBook(new_id=lambda: "i1", processes=table.view)
    (incident,) = book.add(alert)
    asked = build_request(incident, table.view, surroundings=surroundings)
    insight = ground(asked, Answer("fork_storm", 80, "P1", ("f1",)), "heuristics")

    later = attrs.evolve(records[-1], ts_ns=last_ns + 10**12)
    other = attrs.evolve(alert, class_="cpu_spin", id="a2")
    made = bundle_of(incident, [*records, alert, other, later, insight])
    assert made == Bundle(asked, (alert,), insight)
    assert any(type(record) is SystemSample for record in records)
