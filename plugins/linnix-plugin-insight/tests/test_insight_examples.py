"""The format: what is an example, and where a mistake is."""

import json

import attrs
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import insight_schema
from linnix_plugin_insight import BadExample, Label, dump_example, load_example
from linnix_plugin_insight.example import _Insight


def test_an_example_comes_back_as_it_was(examples):
    for example in examples:
        assert load_example(dump_example(example)) == example


def test_a_line_is_ascii_and_one_line(bundle, ask, example):
    request = bundle.request
    processes = tuple(attrs.evolve(p, comm="\x1b[2J\u202eno\nname") for p in request.processes)
    evil = attrs.evolve(example.bundle, request=attrs.evolve(request, processes=processes))
    line = dump_example(attrs.evolve(example, bundle=evil))
    assert line.isascii()
    assert line.isprintable()


def changed(example, path, value):
    document = json.loads(dump_example(example))
    *above, last = path.split(".")
    part = document
    for key in above:
        part = part[int(key) if key.isdigit() else key]
    if value is None and last in part:
        del part[last]
    else:
        part[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("id", None, "$"),
        ("id", "two words", "$.id"),
        ("id", "x" * 121, "$.id"),
        ("surprise", 1, "$"),
        ("schema", 2, "$.schema"),
        ("type", "bundle", "$.type"),
        ("source.type", "guessed", "$.source.type"),
        ("answer.class", "bad_mood", "$.answer.class"),
        ("answer.confidence", 101, "$.answer.confidence"),
        ("answer.confidence", 0.5, "$.answer.confidence"),
        ("answer.process", "P99", "$.answer"),
        ("answer.facts", ["f999"], "$.answer"),
        ("answer.facts", [], "$.answer.facts"),
        ("answer.actions", ["a99"], "$.answer"),
        ("insight.class", "normal", "$.insight.class"),
        ("insight.confidence", 0.01, "$.insight.confidence"),
        ("insight.why", "A long story", "$.insight.why"),
        ("insight.why", "x" * 121, "$.insight.why"),
        ("insight.primary_process", "init (pid 1)", "$.insight.primary_process"),
        ("insight.actions", ["Reboot"], "$.insight.actions"),
        ("label", {"class": "boredom"}, "$.label.class"),
        ("label", {"class": "cpu_spin", "process": "P99"}, "$.label.process"),
        ("label", {"class": "normal", "process": "P1"}, "$.label.process"),
        ("bundle", {"type": "bundle"}, "$.bundle"),
        ("bundle.request.facts.0.id", "f7", "$.bundle"),
        ("held_out", "yes", "$.held_out"),
    ],
)
def test_a_mistake_is_told_with_its_place(example, path, value, place):
    with pytest.raises(BadExample) as caught:
        load_example(changed(example, path, value))
    assert caught.value.place == place


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"type":' * 50_000]
)
def test_what_is_no_json_object_is_no_example(line):
    with pytest.raises(BadExample):
        load_example(line)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_nothing_but_a_bad_example_is_raised(line):
    with pytest.raises(BadExample):
        load_example(line)


def test_a_message_shows_no_control_characters(example):
    with pytest.raises(BadExample) as caught:
        load_example(changed(example, "label", {"class": "normal", "process": "\x1b[2J"}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("label", "agrees"),
    [
        (None, True),
        (Label("cpu_spin", (), ("P1",)), True),
        (Label("cpu_spin", (), ("P2", "P1")), True),
        (Label("oom_risk", ("cpu_spin",), ("P1",)), True),
        (Label("cpu_spin"), True),
        (Label("cpu_spin", (), ("P2",)), False),
        (Label("oom_risk", (), ("P1",)), False),
    ],
)
def test_an_answer_agrees_with_its_label_or_not(example, label, agrees):
    assert (example.answer.class_, example.answer.process) == ("cpu_spin", "P1")
    assert attrs.evolve(example, label=label).agrees is agrees


words = st.text(max_size=130)
insights = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from(["cpu_spin", "normal", "dull"]) | st.none(),
        "confidence": st.sampled_from([0, 1, 0.5, 1.5, -0.1, "1", True, None]),
        "primary_process": words | st.none(),
        "why": words | st.none(),
        "actions": st.lists(st.text(max_size=170), max_size=5) | st.none(),
        "more": st.just(1),
    },
)


@given(insights)
def test_the_keys_of_an_insight_are_checked_as_the_schema_says(insight):
    fits = jsonschema.Draft7Validator(insight_schema()).is_valid(insight)
    try:
        msgspec.convert(insight, _Insight)
    except msgspec.ValidationError:
        assert not fits
    else:
        assert fits
