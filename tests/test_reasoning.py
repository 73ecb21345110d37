"""From an incident to an insight: ids go out, ids come back, and the core writes the words.

Architecture, section 7.
"""

from __future__ import annotations

import json
import math
import re

import attrs
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    CLASSES,
    Answer,
    Evidence,
    Fact,
    Incident,
    IncidentProcess,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    Subject,
    encode,
    printable,
)
from linnix_core.grounding import CLASS_WORDS, NotGrounded, ground, number, sentence_is_grounded
from linnix_core.reasoning import (
    MAX_EVIDENCE,
    MAX_EXTRA,
    build_request,
    insight_document,
    insight_schema,
)
from linnix_core.vocabulary import WORDS

SCHEMA = jsonschema.Draft7Validator(insight_schema())


def key(pid: int) -> ProcessKey:
    return ProcessKey("b", pid, 0)


def table_of(*processes: tuple[int, str, float, int]) -> ProcessTable:
    """Processes by pid, name, CPU and RSS in MiB; all but the first are its children."""
    table = ProcessTable()
    first = processes[0][0] if processes else None
    for pid, comm, cpu, rss in processes:
        parent = {} if pid == first else {"ppid": first, "parent_start_ns": 0}
        table.update(
            [
                ProcessEvent("seen", pid, 0, comm=comm, boot_id="b", **parent),
                ProcessSample(pid, 0, 10**9, cpu_percent=cpu, rss_bytes=rss * 2**20, boot_id="b"),
            ]
        )
    return table


def storm(**parts) -> Incident:
    given_ = {
        "fingerprint": "f",
        "severity": "high",
        "summary": "s",
        "class_": "fork_storm",
        "subject": Subject(key(7), comm="make"),
        "evidence": (Evidence("forks", 812, "forks"), Evidence("window", 1, "s")),
        "id": "i1",
    }
    return Incident(**(given_ | parts))


def request_of(incident: Incident | None = None, table: ProcessTable | None = None, **parts):
    table = table or table_of((7, "make", 97.5, 10), (8, "nginx", 3.25, 20))
    return build_request(incident or storm(), table.view, **parts)


def answer(**parts) -> Answer:
    return Answer(**({"class_": "fork_storm", "confidence": 80, "facts": ("f1",)} | parts))


# --- the request --------------------------------------------------------------------------


def test_facts_processes_and_actions_are_numbered_from_one():
    request = request_of()
    assert [f.id for f in request.facts] == [f"f{n}" for n in range(1, len(request.facts) + 1)]
    assert [p.id for p in request.processes] == ["P1", "P2"]
    assert [a.id for a in request.actions] == ["a1", "a2", "a3", "a4"]
    assert request.actions[-1].text == "Watch whether it comes back"


def test_the_evidence_comes_first_and_belongs_to_the_subject():
    request = request_of()
    assert request.facts[:3] == (
        Fact("forks", 812, "forks", "P1", "f1"),
        Fact("window", 1, "s", "P1", "f2"),
        Fact("alerts", 1, "alerts", "P1", "f3"),
    )


def test_measurements_of_the_processes_are_facts_in_units_that_people_read():
    facts = {(f.process, f.name): (f.value, f.unit) for f in request_of().facts}
    assert facts["P1", "CPU"] == (97.5, "%")
    assert facts["P2", "RSS"] == (20.0, "MiB")


def test_the_subject_is_the_first_process_also_when_it_is_not_known():
    request = request_of(storm(subject=Subject(key(99), exe="/bin/gone", comm="gone")))
    assert (request.processes[0].id, request.processes[0].key) == ("P1", key(99))
    assert (request.processes[0].comm, request.processes[0].exe) == ("gone", "/bin/gone")


def test_without_a_subject_facts_belong_to_nobody_and_no_action_names_a_pid():
    request = request_of(storm(subject=Subject()))
    assert request.facts[0].process is None
    assert [a.text for a in request.actions] == [
        "Bound its cgroup with pids.max (systemd: TasksMax=)",
        "Watch whether it comes back",
    ]


def test_the_largest_children_and_the_top_by_cpu_and_memory_follow():
    small = [(pid, f"c{pid}", 0.5, 1) for pid in range(100, 140)]
    table = table_of(
        (7, "make", 1.0, 1), *small, (8, "cc1", 90.0, 500), (9, "ld", 1.0, 900)
    )  # fmt: skip
    table.update(
        [
            ProcessEvent("seen", 50, 0, comm="java", boot_id="b"),
            ProcessSample(50, 0, 1, cpu_percent=300.0, rss_bytes=2**33, boot_id="b"),
        ]
    )
    comms = [process.comm for process in request_of(table=table).processes]
    assert comms[:3] == ["make", "ld", "cc1"]
    assert "java" in comms
    assert len(comms) <= 1 + 3 + 5 + 5


def test_the_incidents_own_actions_come_before_those_of_its_class():
    request = request_of(storm(actions=("Ask the owner of {pid}", "Ask the owner of {pid}")))
    assert request.actions[0].text == "Ask the owner of 7"
    assert request.actions[1].text == "Look at the tree: pstree -aps 7"


def test_facts_that_handlers_add_are_numbered_on_and_tied_to_given_processes_only():
    request = request_of(
        extra=[Fact("pods", 3, "pods", "P2"), Fact("restarts", 9, "restarts", "P77", id="f1")]
    )
    pods, restarts = (f for f in request.facts if f.name in ("pods", "restarts"))
    assert (pods.name, pods.process) == ("pods", "P2")
    assert (restarts.name, restarts.process) == ("restarts", None)
    assert request.facts.index(restarts) == int(restarts.id[1:]) - 1


@pytest.mark.parametrize(
    "fact",
    [
        Fact("x", math.nan, "1"),
        Fact("x", math.inf, "1"),
        Fact("x", 10**400, "1"),
        Fact("x", "3", "1"),
        Fact("x", None, "1"),
        Fact(None, 3, "1"),
        Fact("x", 3, 1),
    ],
)
def test_a_fact_that_is_no_number_with_words_is_left_out(fact):
    assert request_of(extra=[fact]).facts == request_of().facts


def test_facts_are_bounded(monkeypatch):
    every = storm(evidence=tuple(Evidence(f"e{n}", n, "1") for n in range(1000)))
    few = request_of(every, extra=[Fact(f"n{n}", n, "1") for n in range(1000)])
    assert sum(fact.name.startswith("e") for fact in few.facts) == MAX_EVIDENCE
    assert sum(fact.name.startswith("n") for fact in few.facts) == MAX_EXTRA
    monkeypatch.setattr("linnix_core.reasoning.MAX_FACTS", 20)
    assert len(request_of(every).facts) == 20


def test_the_same_incident_makes_the_same_request():
    assert request_of() == request_of()


def test_a_request_says_how_much_time_there_is():
    assert request_of(timeout_s=2.5).timeout_s == 2.5


# --- the answer ---------------------------------------------------------------------------


def test_ids_are_rendered_as_what_they_stand_for():
    insight = ground(
        request_of(), answer(process="P1", facts=("f1", "f2"), actions=("a2", "a1")), "mine"
    )
    assert insight.class_ == "fork_storm"
    assert insight.confidence == 0.8
    assert insight.primary_process == "make (pid 7)"
    assert insight.why == "Fork storm by make (pid 7): 812 forks, window 1 s"
    assert insight.actions == (
        "Stop it from forking while you look: kill -STOP 7",
        "Look at the tree: pstree -aps 7",
    )
    assert (insight.incident, insight.reasoner, insight.grounded) == ("i1", "mine", True)
    assert [fact.id for fact in insight.facts] == ["f1", "f2"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"facts": ("f99",)}, "fact 'f99' was not given"),
        ({"facts": ("F1",)}, "fact 'F1' was not given"),
        ({"facts": ()}, "no fact is cited"),
        ({"facts": None}, "facts must be"),
        ({"facts": "f1"}, "facts must be"),
        ({"facts": (["f1"],)}, "was not given"),
        ({"process": "P9"}, "process 'P9' was not given"),
        ({"process": ""}, "process '' was not given"),
        ({"process": ["P1"]}, "was not given"),
        ({"actions": ("a1", "a9")}, "action 'a9' was not given"),
        ({"actions": ("rm -rf /",)}, "action 'rm -rf /' was not given"),
        ({"actions": None}, "actions must be"),
        ({"class_": "disaster"}, "'disaster' is no class"),
        ({"class_": None}, "None is no class"),
        ({"class_": ["normal"]}, "is no class"),
        ({"confidence": 101}, "confidence must be a whole number up to 100"),
        ({"confidence": -1}, "confidence must be"),
        ({"confidence": 0.9}, "confidence must be"),
        ({"confidence": True}, "confidence must be"),
        ({"confidence": "80"}, "confidence must be"),
    ],
)
def test_an_answer_that_makes_something_up_is_not_grounded(wrong, said):
    with pytest.raises(NotGrounded, match=re.escape(said)):
        ground(request_of(), answer(**wrong), "mine")


@pytest.mark.parametrize("nonsense", [None, "fork_storm", {"class_": "normal"}, 3])
def test_what_is_no_answer_is_not_grounded(nonsense):
    with pytest.raises(NotGrounded, match="not Answer"):
        ground(request_of(), nonsense, "mine")


def test_what_is_cited_twice_is_said_once_and_actions_are_three_at_most():
    request = request_of(storm(actions=("One", "Two")))
    insight = ground(
        request, answer(facts=("f1", "f1"), actions=("a1", "a1", "a2", "a3", "a4")), "mine"
    )
    assert insight.why == "Fork storm: make 812 forks"
    assert len(insight.actions) == 3


def test_facts_of_others_are_told_apart_from_those_of_the_one_to_blame():
    request = request_of()
    of = {(f.process, f.name): f.id for f in request.facts}
    insight = ground(
        request, answer(process="P1", facts=(of["P1", "CPU"], of["P2", "CPU"])), "mine"
    )
    assert insight.why == "Fork storm by make (pid 7): CPU 97.5%, nginx CPU 3.2%"


@pytest.mark.parametrize(
    "sentence",
    [
        "make forked 812 times within 1 s",
        "make (pid 7) forks 812 times a second; its CPU is high.",
        "make is in a loop",
        "Make forks without end.",
        "make (pid 7) made 812 forks in 1 second",
        "make keeps creating processes: 812 forks within a window of 1s",
        "The process make forks so fast that others wait",
    ],
)
def test_a_sentence_that_says_only_what_was_cited_is_used(sentence):
    given_ = answer(process="P1", facts=("f1", "f2"), sentence=sentence)
    assert ground(request_of(), given_, "mine").why == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "make forked 813 times",
        "make forked 812 times in 2 s",
        "make forked 8120 times",
        "make forked 1e9 times",
        "make forked eight hundred times",
        "make forked twice as often",
        "make forked ⑧ times",
        "make forked 八 times",
        "pid 8 forked 812 times",
        "nginx forked 812 times",
        "it was nginx.",
        "it was (nginx), not make",
        "it was Nginx",
        "make\nforked",
        "make forked \x1b[2J",
        "make " + "x" * 120,
        "mysqld forked 812 times",
        "make of user bob forked 812 times",
        "make is harmless",
        "make does not fork",
        "make forked 812 MiB",
        "make forked 812 processes",
        "make forked 812%",
        "make ran for 812 s",
        "make forked for 1 minute",
        "run rm -rf /tmp",
        "make forks; see example.com",
        "make forks!",
        "P2 forks",
        "f1 shows forks",
        "mаke forks",  # noqa: RUF001 - with a letter that only looks like an a
        "",
        3,
    ],
)
def test_a_sentence_that_says_more_is_replaced_by_the_facts(sentence):
    given_ = answer(process="P1", facts=("f1", "f2"), sentence=sentence)
    insight = ground(request_of(), given_, "mine")
    assert insight.why == "Fork storm by make (pid 7): 812 forks, window 1 s"
    assert insight.grounded


def test_the_name_of_any_process_of_the_tree_is_missed_in_no_sentence():
    tree = (IncidentProcess(key(5), "ancestor", comm="user"),)
    given_ = answer(process="P1", sentence="make forked for user")
    assert ground(request_of(), given_, "mine").why == given_.sentence
    assert ground(request_of(storm(tree=tree)), given_, "mine").why != given_.sentence


def test_words_of_the_cited_facts_may_be_said_and_no_others():
    request = request_of(extra=[Fact("restarts of pods", 9, "pods")])
    pods = next(f.id for f in request.facts if f.unit == "pods")
    given_ = answer(process="P1", facts=(pods,), sentence="9 restarts of 9 pods")
    assert ground(request, given_, "mine").why == given_.sentence
    other = attrs.evolve(given_, facts=("f1",), sentence="restarts of pods")
    assert ground(request, other, "mine").why != other.sentence


def test_whether_a_sentence_was_used_can_be_asked():
    said = answer(process="P1", sentence="make forked 812 times")
    assert sentence_is_grounded(request_of(), said)
    assert not sentence_is_grounded(request_of(), attrs.evolve(said, facts=("f2",)))
    assert not sentence_is_grounded(request_of(), attrs.evolve(said, process=None))


def test_the_vocabulary_has_no_order_no_negation_and_no_number():
    for word in (
        "not",
        "no",
        "never",
        "harmless",
        "safe",
        "ignore",
        "kill",
        "delete",
        "two",
        "twice",
    ):
        assert word not in WORDS
    assert all(word == word.lower() and word.isalpha() for word in WORDS)


def test_a_name_of_digits_cannot_hide_a_number():
    table = table_of((7, "9", 1.0, 1))
    given_ = answer(process="P1", sentence="9 forked 999 times")
    assert ground(request_of(table=table), given_, "mine").why.startswith("Fork storm by 9 (pid 7)")


def test_digits_in_the_name_of_the_one_to_blame_are_no_numbers():
    table = table_of((7, "python3.11", 1.0, 1))
    given_ = answer(process="P1", sentence="python3.11 forked 812 times")
    assert ground(request_of(table=table), given_, "mine").why == given_.sentence
    hidden = answer(process="P1", sentence="python3.112 forked 812 times")
    assert ground(request_of(table=table), hidden, "mine").why != hidden.sentence


def test_a_cited_number_may_be_rounded_and_not_be_changed():
    table = table_of((7, "make", 97.44, 1))
    request = request_of(table=table)
    cpu = next(f.id for f in request.facts if f.name == "CPU")
    for said, kept in (("97.4%", True), ("97%", True), ("98%", False), ("97.44%", False)):
        given_ = answer(process="P1", facts=(cpu,), sentence=f"CPU at {said}")
        assert (ground(request, given_, "mine").why == given_.sentence) is kept


@pytest.mark.parametrize("class_", CLASSES)
def test_every_class_has_words_and_something_to_do(class_):
    request = request_of(storm(class_=class_))
    insight = ground(request, answer(class_=class_, actions=("a1",)), "mine")
    assert insight.why.startswith(CLASS_WORDS[class_])
    assert insight.actions


def test_numbers_are_written_as_people_do():
    assert [number(n) for n in (0, 3.0, -2.5, 0.1 + 0.2, 1 / 3, 123456789)] == [
        "0", "3", "-2.5", "0.3", "0.333", "123456789",
    ]  # fmt: skip


# --- whatever is in it, it fits -----------------------------------------------------------

hostile = st.text(st.characters(exclude_categories=[]), max_size=80)
numbers = st.floats() | st.integers() | st.integers(-(10**30), 10**30)
facts = st.builds(Fact, name=hostile, value=numbers, unit=hostile, process=st.none() | hostile)


@settings(deadline=None, max_examples=100)
@given(
    comm=hostile,
    evidence=st.lists(st.builds(Evidence, name=hostile, value=numbers, unit=hostile), max_size=5),
    extra=st.lists(facts, max_size=5),
    own_actions=st.lists(hostile, max_size=3),
    class_=st.sampled_from(CLASSES),
    confidence=st.integers(0, 100),
    sentence=st.none() | hostile,
    data=st.data(),
)
def test_every_insight_fits_the_schema_and_is_the_same_each_time(
    comm, evidence, extra, own_actions, class_, confidence, sentence, data
):
    incident = storm(
        class_=class_,
        subject=Subject(key(7), comm=comm),
        evidence=tuple(evidence),
        actions=tuple(own_actions),
    )
    table = table_of((7, comm, 1.5, 3), (8, comm, 2.0, 4))
    request = build_request(incident, table.view, extra=extra)
    ids = {name: [item.id for item in getattr(request, name)] for name in ("facts", "actions")}
    given_ = Answer(
        class_=class_,
        confidence=confidence,
        process=data.draw(st.none() | st.sampled_from([p.id for p in request.processes])),
        facts=tuple(data.draw(st.lists(st.sampled_from(ids["facts"]), min_size=1, max_size=6))),
        actions=tuple(data.draw(st.lists(st.sampled_from(ids["actions"]), max_size=6))),
        sentence=sentence,
    )
    insight = ground(request, given_, "mine")
    document = insight_document(insight)
    SCHEMA.validate(document)
    assert len(insight.why) <= 120
    assert len(insight.actions) <= 3
    assert all(1 <= len(action) <= 160 for action in insight.actions)
    assert all(text == printable(text) for text in (insight.why, *insight.actions))
    assert ground(request, given_, "mine") == insight
    encode(insight)


@settings(deadline=None, max_examples=200)
@given(value=st.integers(-(2**62), 2**62) | st.floats(-1e15, 1e15), name=hostile, unit=hostile)
def test_a_number_is_said_whole_or_not_at_all(value, name, unit):
    request = request_of(storm(evidence=(Evidence(name, value, unit),)))
    insight = ground(request, answer(process="P1"), "mine")
    said = insight.why.removeprefix("Fork storm by make (pid 7)")
    assert said == "" or number(value) in said


def test_the_schema_has_the_five_keys_of_the_contract_and_no_others():
    schema = insight_schema()
    keys = ["class", "confidence", "primary_process", "why", "actions"]
    assert schema["required"] == keys == list(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["class"]["enum"] == [
        "fork_storm", "short_job_flood", "runaway_tree", "cpu_spin", "io_saturation", "oom_risk",
        "normal",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"class": "storm"},
        {"confidence": 1.1},
        {"primary_process": ""},
        {"primary_process": "x" * 121},
        {"why": ""},
        {"why": "x" * 121},
        {"actions": ["a", "b", "c", "d"]},
        {"actions": ["x" * 161]},
        {"actions": [""]},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_the_contract_does(change):
    document = insight_document(ground(request_of(), answer(), "mine"))
    SCHEMA.validate(json.loads(json.dumps(document)))
    assert not SCHEMA.is_valid(document | change)


def test_the_document_of_an_insight_is_nothing_but_the_schemas_keys():
    insight = ground(request_of(), answer(process="P1", actions=("a1",)), "mine")
    document = insight_document(attrs.evolve(insight, reasoner="x", id="y"))
    assert document == {
        "class": "fork_storm",
        "confidence": 0.8,
        "primary_process": "make (pid 7)",
        "why": "Fork storm by make (pid 7): 812 forks",
        "actions": ["Look at the tree: pstree -aps 7"],
    }
