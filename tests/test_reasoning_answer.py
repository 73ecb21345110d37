"""What a model replies: taken as it was meant, believed only as far as it was asked."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import CLASSES, Answer, BadAnswer, LinnixError, ask, parse_answer
from linnix_core.grounding import ground
from linnix_core.prompting import MAX_REPLY
from linnix_core.testing.records import reason_request

REQUEST = reason_request("fork_storm")
GOOD = {
    "class": "fork_storm", "confidence": 90, "process": "P1", "facts": ["f1", "f2"],
    "actions": ["a1"],
}  # fmt: skip
LAST = REQUEST.processes[-1].id
ANSWER = Answer("fork_storm", 90, "P1", ("f1", "f2"), ("a1",))


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


# --- taken as it was meant ----------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "{}",
        "\n\n {} \n",
        "```json\n{}\n```",
        "```\n{}\n```\n",
        "Sure! Here is the answer:\n{}\nI hope this helps {{smile}}.",
        "<think>It could be {{nginx}} or {{\"class\": \"normal\"}}.</think>\n{}",
        "<thinking>Hm.</thinking> <thinking>{{</thinking>{}",
        "thinking without a beginning </think>{}",
        "<think>and without an end: {}",
        '{{"answer": {}}}',
        "[{}]",
        '{{"steps": ["look", "think"]}}\n{}',
        "{{{{ {} }}",
        "\ufeff{}",
    ],
)  # fmt: skip
def test_the_object_is_found_wherever_it_is(reply):
    assert parse_answer(reply.format(json.dumps(GOOD)), REQUEST) == ANSWER


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ({"process": None}, {"process": None}),
        ({"process": "none"}, {"process": None}),
        ({"process": "None"}, {"process": None}),
        ({"process": " p1 "}, {}),
        ({"facts": ["F1", "f2"]}, {}),
        ({"facts": "f1"}, {"facts": ("f1",)}),
        ({"facts": ["f1", "f1", "f2"]}, {}),
        ({"facts": [f"f{n}" for n in range(1, 9)]}, {"facts": ("f1", "f2", "f3", "f4")}),
        ({"actions": []}, {"actions": ()}),
        ({"actions": None}, {"actions": ()}),
        ({"confidence": 90.0}, {}),
        ({"confidence": 0.9}, {}),
        ({"confidence": 1.0}, {"confidence": 100}),
        ({"confidence": 1}, {"confidence": 1}),
        ({"confidence": 0}, {"confidence": 0}),
        ({"sentence": "It forks."}, {"sentence": "It forks."}),
        ({"sentence": ""}, {}),
        ({"sentence": 7}, {}),
        ({"why": "because", "primary_process": "nginx"}, {}),
    ],
)
def test_what_is_meant_is_taken(change, meant):
    parts = {name.rstrip("_"): getattr(ANSWER, name) for name in ("process", "facts", "actions")}
    expected = {"confidence": 90, "class_": "fork_storm", **parts, **meant}
    assert parse_answer(json.dumps(GOOD | change), REQUEST) == Answer(**expected)


def test_trailing_commas_are_forgiven_and_commas_in_strings_are_kept():
    reply = (
        '{"class": "fork_storm", "confidence": 90, "process": "P1",\n'
        ' "facts": ["f1", "f2", ], "actions": ["a1",],\n "sentence": "a,] \\",}",\n}'
    )
    assert parse_answer(reply, REQUEST).sentence == 'a,] ",}'


def test_actions_may_be_missing():
    assert parse_answer(json.dumps(without("actions")), REQUEST).actions == ()


def test_the_last_answer_counts():
    first = json.dumps(GOOD | {"class": "normal"})
    assert parse_answer(f"{first}\nNo, wait:\n{json.dumps(GOOD)}", REQUEST) == ANSWER


def test_an_answer_at_the_end_of_a_long_reply_is_found():
    assert parse_answer("{ " * 50_000 + json.dumps(GOOD), REQUEST) == ANSWER


# --- and strictly -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("", "the reply is empty"),
        (" \n", "the reply is empty"),
        (None, "the reply is empty"),
        ("I cannot help with that.", "there is no JSON object"),
        ('["fork_storm"]', "there is no JSON object"),
        (json.dumps(GOOD)[:-20], "the JSON object is broken or has no end"),
        ("{'class': 'fork_storm'}", "the JSON object is broken or has no end"),
        (json.dumps(without("class")), "the object has no key class"),
        (json.dumps(without("confidence")), "confidence must be a whole number from 0 to 100"),
        (json.dumps(without("facts")), "facts must hold at least one id from f1 to f"),
        (json.dumps(GOOD | {"class": "disaster"}), "class must be one of fork_storm, short"),
        (json.dumps(GOOD | {"class": ["normal"]}), "class must be one of"),
        (json.dumps(GOOD | {"confidence": 101}), "not 101"),
        (json.dumps(GOOD | {"confidence": -1}), "not -1"),
        (json.dumps(GOOD | {"confidence": 85.5}), "not 85.5"),
        (json.dumps(GOOD | {"confidence": True}), "not True"),
        (json.dumps(GOOD | {"confidence": "90"}), "not '90'"),
        (json.dumps(GOOD).replace("90", "NaN"), "not nan"),
        (json.dumps(GOOD).replace("90", "1" * 400), "not 1111"),
        (
            json.dumps(GOOD | {"process": "nginx"}),
            f"process must be P1 to {LAST} or none, not 'nginx'",
        ),
        (json.dumps(GOOD | {"process": 1}), "process must be"),
        (json.dumps(GOOD | {"facts": []}), "at least one id"),
        (json.dumps(GOOD | {"facts": {"f1": 1}}), "facts must be a list of ids"),
        (json.dumps(GOOD | {"facts": ["f1", "f99"]}), "not 'f99'"),
        (json.dumps(GOOD | {"facts": [1]}), "not 1"),
        (json.dumps(GOOD | {"actions": ["rm -rf /"]}), "actions must be ids from a1 to a4"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_that_a_model_can_follow(reply, said):
    with pytest.raises(BadAnswer, match=re.escape(said)) as raised:
        parse_answer(reply, REQUEST)
    assert len(str(raised.value)) < 200
    assert str(raised.value).isprintable()
    assert isinstance(raised.value, LinnixError)


# --- whatever it is, it is an answer to the request or none -------------------------------

text = st.text(st.characters(exclude_categories=[]), max_size=60)
numbers = st.integers() | st.floats()
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
ids = st.sampled_from(["f1", "f2", "F3", "P1", "p2", "P99", "none", "a1", "A2", "a9", "f99", ""])
answers = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from(CLASSES) | json_values,
        "confidence": st.integers(-10, 110) | st.floats(0, 1) | json_values,
        "process": ids | json_values,
        "facts": st.lists(ids, max_size=6) | json_values,
        "actions": st.lists(ids, max_size=6) | json_values,
        "sentence": text | json_values,
    },
)
pieces = st.sampled_from(
    ["{", "}", "[", "]", '"', "\\", ",", ":", "class", "<think>", "</think>", "```", "\n", "1e9"]
)


@given(before=text, said=answers, after=text)
def test_an_object_within_anything_is_an_answer_to_the_request_or_none(before, said, after):
    _grounded_or_refused(before + json.dumps(said) + after)


@given(reply=st.lists(pieces | text, max_size=40).map("".join))
def test_a_reply_that_is_anything_is_refused_in_words(reply):
    _grounded_or_refused(reply)


def _grounded_or_refused(reply):
    try:
        answer = parse_answer(reply, REQUEST)
    except BadAnswer:
        return
    assert ground(REQUEST, answer, "mine").grounded


def some(items, least, most):
    of_them = st.sampled_from([item.id for item in items])
    return st.lists(of_them, min_size=least, max_size=most, unique=True)


@given(
    class_=st.sampled_from(CLASSES),
    confidence=st.integers(0, 100),
    process=st.sampled_from([None, *(p.id for p in REQUEST.processes)]),
    facts=some(REQUEST.facts, 1, 4),
    actions=some(REQUEST.actions, 0, 3),
    around=st.sampled_from(["{}", "```json\n{}\n```", "<think>{{</think>{}", "So: {}. Done."]),
    indent=st.sampled_from([None, 2]),
)  # fmt: skip
def test_what_was_written_is_what_is_read(
    class_, confidence, process, facts, actions, around, indent
):
    said = {
        "class": class_, "confidence": confidence, "process": process or "none", "facts": facts,
        "actions": actions,
    }  # fmt: skip
    expected = Answer(class_, confidence, process, tuple(facts), tuple(actions))
    assert parse_answer(around.format(json.dumps(said, indent=indent)), REQUEST) == expected


@pytest.mark.parametrize(
    "piece", ["{", '{"', '{"a":', "[", '"\\', "{,", '{"class":{', "<think>", "</think>{", '\\"']
)
def test_a_reply_that_is_made_to_take_long_is_refused_like_any_other(piece):
    with pytest.raises(BadAnswer):
        parse_answer(piece * MAX_REPLY, REQUEST)


# --- asking -------------------------------------------------------------------------------


class Model:
    """Replies with what it is given, one after the other, and notes what it was asked."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.calls = []

    def __call__(self, messages, schema, timeout_s):
        self.calls.append((list(messages), schema, timeout_s))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_a_good_reply_is_asked_for_once():
    model = Model(json.dumps(GOOD))
    assert ask(REQUEST, model) == ANSWER
    ((messages, schema, timeout_s),) = model.calls
    assert [message["role"] for message in messages] == ["system", "user"]
    assert schema["properties"]["process"]["enum"][-1] == "none"
    assert timeout_s == REQUEST.timeout_s


def test_a_bad_reply_is_sent_back_once_with_what_is_wrong():
    bad = json.dumps(GOOD | {"process": "nginx"})
    model = Model(bad, json.dumps(GOOD))
    assert ask(REQUEST, model) == ANSWER
    messages, _, timeout_s = model.calls[1]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == bad
    assert f"process must be P1 to {LAST} or none, not 'nginx'" in messages[3]["content"]
    assert 0 < timeout_s <= REQUEST.timeout_s


def test_a_second_bad_reply_is_the_end():
    model = Model("no", "no again", json.dumps(GOOD))
    with pytest.raises(BadAnswer, match="no JSON object"):
        ask(REQUEST, model)
    assert len(model.calls) == 2


def test_a_long_bad_reply_is_sent_back_in_part():
    model = Model("x" * 100_000, json.dumps(GOOD))
    ask(REQUEST, model)
    assert len(model.calls[1][0][2]["content"]) == 2_000


def test_without_time_for_a_second_reply_the_first_mistake_is_the_end(monkeypatch):
    moments = iter([0.0, REQUEST.timeout_s])
    monkeypatch.setattr("linnix_core.prompting.time.monotonic", lambda: next(moments))
    model = Model("no", json.dumps(GOOD))
    with pytest.raises(BadAnswer):
        ask(REQUEST, model)
    assert len(model.calls) == 1


def test_what_a_plugin_raises_passes_through():
    with pytest.raises(ConnectionError):
        ask(REQUEST, Model(ConnectionError("refused")))


def test_a_sentence_is_asked_for_in_words_and_in_the_schema():
    model = Model(json.dumps(GOOD | {"sentence": "It forks."}))
    assert ask(REQUEST, model, sentence=True).sentence == "It forks."
    messages, schema, _ = model.calls[0]
    assert '"sentence"' in messages[0]["content"]
    assert schema["properties"]["sentence"] == {"type": "string", "maxLength": 120}
