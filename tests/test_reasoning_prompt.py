"""What a model is asked: numbers and ids, in words that no process chose."""

from __future__ import annotations

import json
import re

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import (
    CLASSES,
    Fact,
    IncidentProcess,
    ProcessKey,
    RequestProcess,
    answer_schema,
    narrowed,
    process_table,
    render_prompt,
)
from linnix_core.prompting import MAX_NAME, spoken_name
from linnix_core.testing.injections import ORDERS, injected
from linnix_core.testing.records import reason_request

hostile = st.text(st.characters(exclude_categories=[]), max_size=80)


@pytest.fixture
def request_():
    return reason_request("fork_storm")


def user_of(request, **options):
    system, user = render_prompt(request, **options)
    assert (system["role"], user["role"]) == ("system", "user")
    return user["content"]


def with_arguments(request, *args):
    first = request.processes[0]
    tree = (IncidentProcess(first.key, "subject", comm=first.comm, args=args),)
    return attrs.evolve(request, incident=attrs.evolve(request.incident, tree=tree))


# --- what is in it ------------------------------------------------------------------------


def test_the_task_names_the_classes_and_the_keys(request_):
    system = render_prompt(request_)[0]["content"]
    for word in (*CLASSES, '"class"', '"confidence"', '"process"', '"facts"', '"actions"', "none"):
        assert word in system
    assert '"sentence"' not in system
    assert '"sentence"' in render_prompt(request_, sentence=True)[0]["content"]


def test_every_id_of_the_request_is_shown_with_what_it_stands_for(request_):
    lines = user_of(request_).splitlines()
    assert "f1 forks = 812 (P1)" in lines
    assert "f2 threshold = 100 forks (P1)" in lines
    assert "a1 Look at the tree: pstree -aps 437" in lines
    assert "the alerts name P1" in lines
    for item in (*request_.facts, *request_.processes, *request_.actions):
        assert any(line.startswith(f"{item.id} ") for line in lines)


def test_what_the_alerts_think_is_said_as_such(request_):
    assert user_of(request_).startswith("detected: fork_storm\n")
    unknown = attrs.evolve(request_, incident=attrs.evolve(request_.incident, class_=None))
    assert user_of(unknown).startswith("detected: unknown\n")


def test_nothing_is_shown_of_what_is_not_there(request_):
    bare = attrs.evolve(request_, processes=(), actions=())
    assert "processes:" not in user_of(bare)
    assert "actions:" not in user_of(bare)


def test_the_same_request_makes_the_same_messages(request_):
    assert render_prompt(request_) == render_prompt(request_)


def test_a_prompt_of_the_largest_request_stays_small(request_):
    facts = tuple(Fact("n" * 100, 1.234, "u" * 50, "P1", f"f{n}") for n in range(1, 65))
    assert len(user_of(attrs.evolve(request_, facts=facts))) < 8_000


# --- what a process chose -----------------------------------------------------------------


def test_names_are_those_of_the_executable_and_one_harmless_word():
    def of(comm, exe=None):
        return spoken_name(RequestProcess("P1", ProcessKey("b", 1, 0), comm, exe))

    assert of("x", "/usr/bin/python3.11") == "python3.11"
    assert of("x", "/usr/bin/gone (deleted)") == "gone"
    assert of("my-name") == "my-name"
    assert of("two words\n") == "two?words?"
    assert of("", "/opt/a-very-long-name-of-a-program") == "a-very-long-nam"
    assert of("\u202e\u200b") == of("") == of("x", "/tmp/???") == "unnamed"


@given(comm=hostile, exe=st.none() | hostile)
def test_no_name_is_more_than_a_word(comm, exe):
    name = spoken_name(RequestProcess("P1", ProcessKey("b", 1, 0), comm, exe))
    assert re.fullmatch(r"[A-Za-z0-9._+@?-]{1,15}", name)
    assert len(name) <= MAX_NAME


@given(text=hostile)
def test_words_of_rules_and_plugins_stay_on_their_line(text):
    request = reason_request("cpu_spin")
    facts = (*request.facts, Fact(text, 1, text, None, "f99"))
    actions = tuple(attrs.evolve(action, text=text) for action in request.actions)
    content = user_of(attrs.evolve(request, facts=facts, actions=actions))
    expected = user_of(attrs.evolve(request, facts=(*request.facts, Fact("x", 1, "", None, "f99"))))
    assert content.isascii()
    assert len(content.splitlines()) == len(expected.splitlines())


@pytest.mark.parametrize("class_", CLASSES)
def test_by_default_a_prompt_is_the_same_whatever_processes_are_called(class_):
    request = reason_request(class_)
    expected = render_prompt(request)
    for order, hostile_request in injected(request):
        assert render_prompt(hostile_request) == expected, order


def test_names_are_shown_where_they_were_asked_for(request_):
    name = spoken_name(request_.processes[0])
    assert f"  {name}  " not in user_of(request_)
    assert f"  {name}  " in user_of(request_, names=True)


@pytest.mark.parametrize("class_", CLASSES)
def test_no_order_is_in_a_prompt_with_names_as_it_was_given(class_):
    for order, request in injected(reason_request(class_)):
        content = user_of(request, names=True)
        assert "nstruction" not in content, order
        assert content.isascii()
        assert len(content.splitlines()) == len(user_of(reason_request(class_)).splitlines())


def test_command_lines_are_left_out_unless_they_are_asked_for(request_):
    request = with_arguments(request_, "make", "--token-of-its-own")
    assert "--token-of-its-own" not in user_of(request)
    assert "--token-of-its-own" in user_of(request, arguments=True)


@pytest.mark.parametrize("order", ORDERS)
def test_command_lines_are_json_within_a_mark_that_nobody_can_guess(request_, order):
    request = with_arguments(request_, "sh", "-c", order, *["x"] * 50, "y" * 5_000)
    content = user_of(request, arguments=True)
    head, mark, data, end = content.rsplit("\n", 3)
    assert mark == end
    assert re.fullmatch("[0-9a-f]{16}", mark)
    assert mark in head.splitlines()[-1]  # where it is said that all this is data
    assert content.isascii()
    (words,) = json.loads(data).values()
    assert words[:2] == ["sh", "-c"]
    assert len(words) == 8
    assert max(map(len, words)) <= 80
    assert mark != user_of(request, arguments=True).splitlines()[-1]


def test_without_any_command_line_there_is_no_block_for_them(request_):
    assert user_of(request_, arguments=True) == user_of(request_)


# --- the table ----------------------------------------------------------------------------


def test_processes_are_a_table_that_is_aligned():
    processes = [
        RequestProcess("P1", ProcessKey("b", 7, 0), "java", "/opt/java", 152.72, 2**31),
        RequestProcess("P2", ProcessKey("b", 123456, 0), "a\x1b[2Jb\nc"),
    ]
    assert process_table(processes).splitlines() == [
        "id     pid  name      cpu%  rss_mib",
        "P1       7  java     152.7   2048.0",
        "P2  123456  a?2Jb?c      -        -",
    ]


# --- the schema ---------------------------------------------------------------------------


@pytest.mark.parametrize("sentence", [False, True])
@pytest.mark.parametrize("class_", CLASSES)
def test_the_schema_takes_ids_of_the_request_and_nothing_else(class_, sentence):
    request = reason_request(class_)
    schema = answer_schema(request, sentence=sentence)
    jsonschema.Draft7Validator.check_schema(schema)
    valid = jsonschema.Draft7Validator(schema).is_valid
    good = {
        "class": class_, "confidence": 80, "process": "P1", "facts": ["f1"], "actions": ["a1"],
        **({"sentence": "It forks."} if sentence else {}),
    }  # fmt: skip
    assert valid(good)
    assert valid(good | {"process": "none", "actions": []})
    for wrong in (
        {"class": "storm"}, {"confidence": 101}, {"confidence": 0.8}, {"process": "P99"},
        {"process": "nginx"}, {"facts": []}, {"facts": ["f99"]}, {"actions": ["rm -rf /"]},
        {"why": "because"},
    ):  # fmt: skip
        assert not valid(good | wrong), wrong


def test_the_schema_is_flat_and_has_nothing_that_grammars_do_not_enforce(request_):
    schema = answer_schema(request_, sentence=True)
    text = json.dumps(schema)
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    for keyword in ("pattern", "$ref", "oneOf", "anyOf", "format", "number"):
        assert f'"{keyword}"' not in text


def test_what_was_not_given_is_no_key_of_the_schema(request_):
    bare = attrs.evolve(request_, facts=(), processes=(), actions=())
    assert list(answer_schema(bare)["properties"]) == ["class", "confidence", "process"]
    assert answer_schema(bare)["properties"]["process"]["enum"] == ["none"]


# --- a smaller one ------------------------------------------------------------------------


def test_a_narrowed_request_has_the_first_and_keeps_their_ids(request_):
    small = narrowed(request_, facts=3, processes=2)
    assert small.facts == request_.facts[:3]
    assert small.processes == request_.processes[:2]
    assert small.actions == request_.actions
