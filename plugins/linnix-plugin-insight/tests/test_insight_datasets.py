"""What the repository ships: the schema, the examples, and the held-out incidents."""

import importlib.resources
import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from linnix_core import CLASSES, insight_schema
from linnix_plugin_insight import load_example
from linnix_plugin_insight.chat import chat_of
from linnix_plugin_insight.splitting import entry_of

DATASETS = Path(__file__).parents[3] / "datasets"

pytestmark = pytest.mark.skipif(
    not DATASETS.is_dir(), reason="the datasets are in the repository only"
)


def read(name):
    lines = (DATASETS / name / "incidents.jsonl").read_bytes().splitlines()
    return [load_example(line) for line in lines]


@pytest.fixture(scope="module")
def shipped():
    return {name: read(name) for name in ("examples", "held-out")}


def test_the_schema_is_that_of_the_code():
    path = DATASETS / "schema" / "insight.schema.json"
    assert path.read_text() == json.dumps(insight_schema(), indent=2) + "\n"


def test_every_insight_fits_it(shipped):
    validator = jsonschema.Draft7Validator(
        json.loads((DATASETS / "schema" / "insight.schema.json").read_text())
    )
    for examples in shipped.values():
        for example in examples:
            validator.validate(example.insight)


def test_there_are_fifty_examples_of_every_class(shipped):
    counts = Counter(example.class_ for example in shipped["examples"])
    assert sum(counts.values()) == 50
    assert set(counts) == set(CLASSES)
    assert min(counts.values()) >= 5


def test_every_class_is_held_out_too(shipped):
    assert {example.class_ for example in shipped["held-out"]} == set(CLASSES)


def test_everything_was_recorded_and_has_its_truth_and_facts(shipped):
    for examples in shipped.values():
        for example in examples:
            assert example.source == "recorded"
            assert example.label is not None
            assert example.agrees
            assert len(example.bundle.request.facts) >= 10


def test_who_did_it_is_named_in_the_examples(shipped):
    for example in shipped["examples"]:
        assert bool(example.label.processes) == (example.class_ != "normal")


def test_no_name_is_used_twice_and_no_family_is_in_both(shipped):
    names = [example.id for examples in shipped.values() for example in examples]
    assert len(names) == len(set(names))
    families = [{example.family for example in examples} for examples in shipped.values()]
    assert families[0] & families[1] == set()
    assert {e.held_out for e in shipped["examples"]} == {False}
    assert {e.held_out for e in shipped["held-out"]} == {True}


def test_what_is_held_out_is_like_nothing_that_is_not(shipped):
    kin = []
    for examples in shipped.values():
        chats = [(example, chat_of(example)) for example in examples]
        kin.append({k for e, c in chats for k in entry_of(e, c[1]["content"], "").kin})
    assert kin[0] & kin[1] == set()


def test_nothing_tells_on_whose_machine_it_was(shipped):
    for examples in shipped.values():
        for example in examples:
            incident = example.bundle.request.incident
            assert (incident.host, incident.run_id, incident.tree) == ("", "", ())
            assert incident.boot_id == "00000000-0000-4000-8000-000000000000"
            for process in example.bundle.request.processes:
                assert (process.exe or "/usr/").startswith(("/usr/", "/bin/", "/opt/app/"))


def test_the_score_that_heuristics_ships_is_the_one_it_has(linnix, tmp_path):
    package = Path(str(importlib.resources.files("linnix_plugin_heuristics")))
    ships = json.loads((package / "score.json").read_text())
    linnix("score", DATASETS / "held-out" / "incidents.jsonl", "--save", tmp_path / "score.json")
    has = json.loads((tmp_path / "score.json").read_text())
    del ships["latency_s"], has["latency_s"]
    assert ships == has
