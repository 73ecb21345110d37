"""The grammar lets through what the schema of an answer allows, and nothing else."""

import itertools
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import CLASSES, answer_schema, parse_answer
from linnix_core.testing.records import reason_request
from linnix_plugin_llama_cpp.child import Child
from linnix_plugin_llama_cpp.grammar import grammar_of


def rule(name, wanted):
    lines = grammar_of({"type": "object", "properties": {name: wanted}}).splitlines()
    return lines[1].partition("::= ")[2]


def test_ids_are_the_only_choice():
    assert rule("process", {"type": "string", "enum": ["P1", "none"]}) == r'"\"P1\"" | "\"none\""'


def test_what_grammars_quote_is_quoted():
    assert rule("x", {"type": "string", "enum": ['a"\\\n']}) == r'"\"a\\\"\\\\\\n\""'


@pytest.mark.parametrize(
    ("least", "most", "count"), [(1, 4, "{0,3}"), (1, 1, "{0,0}"), (2, 3, "{1,2}")]
)
def test_lists_are_as_long_as_they_may_be(least, most, count):
    wanted = {"type": "array", "items": {"enum": ["f1"]}, "minItems": least, "maxItems": most}
    assert rule("facts", wanted) == rf'"[" ("\"f1\"") (", " ("\"f1\"")){count} "]"'


def test_a_list_may_be_empty():
    wanted = {"type": "array", "items": {"enum": ["a1"]}, "minItems": 0, "maxItems": 2}
    assert rule("actions", wanted) == r'"[" (("\"a1\"") (", " ("\"a1\"")){0,1})? "]"'


def test_texts_are_short_and_hold_nothing_that_has_to_be_escaped():
    said = rule("sentence", {"type": "string", "maxLength": 120})
    assert said == r'"\"" [ !#-\[\]-z|~]{0,120} "\""'


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "number"},
        {"type": "integer"},
        {"type": "integer", "minimum": 0, "maximum": 37},
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 0, "maxItems": 2},
        {"type": "object", "properties": {}},
    ],
)
def test_what_no_answer_needs_has_no_grammar(wanted):
    with pytest.raises(ValueError, match="no grammar"):
        rule("x", wanted)


@pytest.mark.parametrize("name", ["a b", "a::=", 'a"', "ä", ""])
def test_a_key_that_is_no_name_of_a_rule_is_refused(name):
    with pytest.raises(ValueError, match="no name"):
        rule(name, {"type": "string", "enum": ["x"]})


def test_nothing_to_choose_from_looks_like_the_end():
    with pytest.raises(ValueError, match="brace"):
        rule("process", {"type": "string", "enum": ["P1", "P}"]})


# --- with llama.cpp -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def reply(make_model):
    """What models of random weights say under a grammar: anything that it lets through."""
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    children = [
        Child(
            {
                "model": str(make_model(seed=seed)),
                "context": 4096,
                "threads": 1,
                "nice": 0,
                "memory": None,
                "idle_after": 300,
            }
        )
        for seed in (1, 2)
    ]
    turn = itertools.count()

    def reply(grammar, prompt="x"):
        child = children[next(turn) % len(children)]
        messages = [{"role": role, "content": prompt} for role in ("system", "user")]
        request = {"messages": messages, "grammar": grammar, "max_tokens": 1000}
        return child.ask(request, time.monotonic() + 60)

    yield reply
    for child in children:
        child.close()


_LENIENT = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_WORDS = st.text(st.characters(codec="ascii", exclude_characters="}"), min_size=1, max_size=12)


@_LENIENT
@given(st.lists(_WORDS, min_size=1, max_size=6, unique=True), _WORDS, st.booleans())
def test_every_reply_fits_whatever_the_ids_are(reply, ids, prompt, empty):
    most = len(ids)
    schema = {
        "type": "object",
        "properties": {
            "one": {"type": "string", "enum": ids},
            "number": {"type": "integer", "minimum": 0, "maximum": 100},
            "some": {
                "type": "array",
                "items": {"enum": ids},
                "minItems": 0 if empty else 1,
                "maxItems": most,
            },
            "words": {"type": "string", "maxLength": 30},
        },
    }
    said = reply(grammar_of(schema), prompt)
    assert said["why"] == "done"
    fits = json.loads(said["text"])
    assert list(fits) == ["one", "number", "some", "words"]
    assert fits["one"] in ids
    assert type(fits["number"]) is int
    assert 0 <= fits["number"] <= 100
    assert set(fits["some"]) <= set(ids)
    assert (0 if empty else 1) <= len(fits["some"]) <= most
    assert len(fits["words"]) <= 30
    assert fits["words"].isascii()
    assert fits["words"].isprintable()
    assert said["text"] == json.dumps(fits)  # as training data is written


@pytest.mark.parametrize("class_", CLASSES)
@pytest.mark.parametrize("sentence", [False, True])
def test_every_reply_is_an_answer(reply, class_, sentence):
    request = reason_request(class_)
    said = reply(grammar_of(answer_schema(request, sentence=sentence)), class_)
    assert parse_answer(said["text"], request).facts
