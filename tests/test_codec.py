"""Records as JSON lines: one object per line, and back without a loss.

Architecture, section 5: field names as in the records, nested records as nested objects.
"""

from __future__ import annotations

import json
import types
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    Batch,
    CgroupSample,
    Evidence,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    SystemSample,
    decode,
    encode,
)
from linnix_core.codec import json_schema, plain

TYPES = {
    "event": ProcessEvent,
    "sample": ProcessSample,
    "cgroup": CgroupSample,
    "system": SystemSample,
    "loss": Loss,
    "alert": Alert,
    "incident": Incident,
    "insight": Insight,
}
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Keys that mean something elsewhere in a record mean nothing in a mapping of the user's.
keys = st.sampled_from(["class", "class_", "type", "boot_id", "pid", "start_ns"]) | texts
SCALARS = {
    str: texts,
    int: st.integers(0, 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, as a collector or the core might put it into a record."""
    if hint in SCALARS:
        return SCALARS[hint]
    if attrs.has(hint) or hint is ProcessKey:
        return records(hint)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*map(values, get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(keys, values(get_args(hint)[1]), max_size=3)
    raise TypeError(hint)


def records(cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    names = cls._fields if cls is ProcessKey else [f.name for f in attrs.fields(cls) if f.init]
    return st.builds(cls, **{name: values(hints[name]) for name in names})


any_record = st.one_of(*map(records, TYPES.values()))


@settings(deadline=None, max_examples=400)
@given(record=any_record)
def test_every_record_comes_back_as_it_went(record):
    assert decode(encode(record)) == record
    assert type(decode(encode(record))) is type(record)


@settings(deadline=None, max_examples=300)
@given(record=any_record)
def test_every_line_is_one_line_that_fits_the_schema(record):
    line = encode(record)
    assert len(line.splitlines()) == 1
    assert all(unicodedata.category(character) != "Cc" for character in line.decode("utf-8"))
    VALIDATOR.validate(json.loads(line))


def test_controls_that_a_terminal_would_obey_are_written_as_escapes():
    sample = ProcessSample(7, 0, 1, comm="a\x7f\x9b\x80é\x1b")
    assert rb"a\u007f\u009b\u0080" + "é".encode() + rb"\u001b" in encode(sample)
    assert decode(encode(sample)) == sample


@pytest.mark.parametrize("cls", TYPES.values(), ids=TYPES)
def test_the_keys_of_a_line_are_the_attributes_of_its_record(cls):
    required = {
        field.name: {"kind": "fork", "severity": "low", "class_": "normal"}.get(field.name, 0)
        for field in attrs.fields(cls)
        if field.default is attrs.NOTHING
    }
    line = json.loads(encode(cls(**required)))
    assert set(line) == {field.name.rstrip("_") for field in attrs.fields(cls)}
    assert line["type"] == next(name for name, known in TYPES.items() if known is cls)


def test_nested_records_are_nested_objects():
    alert = Alert(
        "fork_storm",
        "high",
        "812 forks in 1 s",
        "fork_storm",
        subject=Subject(ProcessKey("b", 7, 10), exe="/bin/sh"),
        evidence=(Evidence("forks", 812, "forks"),),
    )
    line = json.loads(encode(alert))
    assert line["class"] == "fork_storm"
    assert line["subject"]["key"] == {"boot_id": "b", "pid": 7, "start_ns": 10}
    assert line["evidence"] == [{"name": "forks", "value": 812, "unit": "forks"}]


def test_a_process_key_is_a_process_key_again():
    back = decode(encode(Alert("r", "low", "m", subject=Subject(ProcessKey("b", 7, 10)))))
    assert isinstance(back.subject.key, ProcessKey)


def test_plain_makes_dictionaries_of_what_is_nested():
    made = plain(Insight("normal", 0.5, None, "why", ("act",)))
    assert made["class"] == "normal"
    assert made["actions"] == ["act"]


def test_a_batch_is_encoded_once_for_all_who_ask():
    batch = Batch([ProcessEvent("fork", 7, 0), Loss("handlers.x", "queue_full", 1, 1, 10)])
    lines = batch.lines()
    assert lines == tuple(map(encode, batch))
    assert batch.lines() is lines


def broken(record: Any, path: Sequence[Any], value: Any) -> bytes:
    """The line of a record with another value at one place."""
    document = inner = json.loads(encode(record))
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(document).encode()


ALERT = Alert(
    "r", "low", "m", "normal", Subject(ProcessKey("b", 7, 10)), (Evidence("a", 1, "1"),), ("x",)
)
EVENT = ProcessEvent("fork", 7, 0, args=("a", "b"), labels={"pod": "p"})


@pytest.mark.parametrize(
    ("record", "path", "value", "place"),
    [
        (EVENT, ["pid"], "seven", "$.pid"),
        (EVENT, ["kind"], "spoon", "$.kind"),
        (EVENT, ["args", 1], 5, "$.args[1]"),
        (EVENT, ["labels", "pod"], 5, "$.labels"),
        (ALERT, ["severity"], "bad", "$.severity"),
        (ALERT, ["class"], "storm", "$.class`"),
        (ALERT, ["subject"], 3, "$.subject`"),
        (ALERT, ["subject", "key", "pid"], "seven", "$.subject.key.pid"),
        (ALERT, ["subject", "key", "boot_id"], None, "$.subject.key.boot_id"),
        (ALERT, ["evidence", 0, "value"], "many", "$.evidence[0].value"),
    ],
)
def test_a_mistake_names_its_place_in_the_line(record, path, value, place):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words are what is tested
        decode(broken(record, path, value))
    assert place in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"type":3}', b'{"type":"bad"}',
        b'{"type":"alert"}',
        b'{"type":"alert","deep":' + b"[" * 100_000,
        b'{"type":"event","args":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_record_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"."):
        decode(line)


@settings(deadline=None, max_examples=300)
@given(line=st.binary(max_size=60) | any_record.map(encode).map(lambda line: line[:-3]))
def test_garbage_is_a_value_error_and_nothing_worse(line):
    with pytest.raises(ValueError, match=r"."):
        decode(line)


def test_a_line_of_a_later_version_is_read_without_its_new_keys():
    line = json.loads(encode(EVENT)) | {"colour": "green"}
    assert decode(json.dumps(line)) == EVENT


def test_the_schema_refuses_what_is_no_record():
    line = json.loads(encode(EVENT))
    assert VALIDATOR.is_valid(line)
    assert not VALIDATOR.is_valid(line | {"colour": "green"})
    assert not VALIDATOR.is_valid(line | {"kind": "spoon"})
    assert not VALIDATOR.is_valid({key: line[key] for key in line if key != "pid"})


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())
