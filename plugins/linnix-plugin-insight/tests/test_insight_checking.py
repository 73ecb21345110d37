"""``validate``, ``repair`` and ``stats``."""

import gzip
import json
import stat

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_plugin_insight import BadExample, Label, dump_example, load_example
from linnix_plugin_insight.files import MAX_LINE_BYTES, lines_of
from linnix_plugin_insight.repairing import repair


@pytest.fixture
def document(example):
    return json.loads(dump_example(attrs.evolve(example, label=Label("cpu_spin", (), ("P1",)))))


# --- validate -----------------------------------------------------------------------------


def test_right_lines_are_counted(linnix, write, examples):
    assert linnix("validate", write(examples)).out == "56 examples, 0 mistakes\n"


def test_every_mistake_is_told_with_file_line_and_place(linnix, write, example, document):
    document["answer"]["facts"] = ["f999"]
    path = write([example, "", "{", document])
    said = linnix("validate", path, code=1)
    assert f"{path}:3: $: is no JSON" in said.err
    assert f"{path}:4: $.answer: fact 'f999' was not given" in said.err
    assert said.out == "1 examples, 2 mistakes\n"


def test_mistakes_as_json(linnix, write, example):
    path = write([example, "{"])
    said = linnix("validate", "--json", path, code=1)
    assert said.json["examples"] == said.json["mistakes"] == 1
    assert said.json["shown"][0]["file"] == str(path)
    assert said.json["shown"][0]["line"] == 2
    assert said.err == ""


def test_a_name_is_used_once_in_all_files(linnix, write, example):
    first, second = write([example], "a.jsonl"), write([example], "b.jsonl")
    assert f"is the name of {first}:1, too" in linnix("validate", first, second, code=1).err


def test_many_mistakes_are_counted_and_not_all_shown(linnix, write):
    said = linnix("validate", write(["{}"] * 150), code=1)
    assert len(said.err.splitlines()) == 101
    assert said.out == "0 examples, 150 mistakes\n"


def test_a_line_without_an_end_takes_no_memory_and_the_next_is_read(linnix, write, example):
    path = write(["x" * (MAX_LINE_BYTES * 2 + 5), example])
    said = linnix("validate", path, code=1)
    assert f"{path}:1: $: is too long" in said.err
    assert said.out == "1 examples, 1 mistakes\n"
    assert [len(line.data or b"") > 0 for line in lines_of(path)] == [False, True]


def test_packed_files_and_standard_input_are_read(linnix, write, example, tmp_path):
    path = write([example])
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert linnix("validate", packed).out == "1 examples, 0 mistakes\n"
    assert linnix("validate", "-", stdin=path.read_text()).out == "1 examples, 0 mistakes\n"


def test_a_file_that_is_not_there_is_told(linnix, tmp_path):
    assert "No such file" in linnix("validate", tmp_path / "no", code=1).err


# --- repair -------------------------------------------------------------------------------


def mended(document, line=None):
    result = repair(line or json.dumps(document).encode())
    return load_example(result.line), result.notes


def test_a_right_line_is_left_as_it_is(example):
    line = dump_example(example)
    assert (repair(line.encode()).line, repair(line.encode()).notes) == (line, ())


@pytest.mark.parametrize(
    ("part", "key", "value", "note"),
    [
        ("answer", "confidence", 0.6, "confidence: 0.6 became 60"),
        ("answer", "confidence", 60.0, "confidence: 60.0 became 60"),
        ("answer", "class", "CPU-Spin", "class: 'CPU-Spin' became cpu_spin"),
        ("answer", "process", "p1", "process: 'p1' became P1"),
        ("answer", "facts", "f1", 'facts: "f1" became ["f1"]'),
        ("answer", "facts", ["F1", "f999"], "ids that were not given were taken out"),
        ("answer", "mood", "good", "mood: taken out"),
        ("label", "class", "cpu spin", "class: 'cpu spin' became cpu_spin"),
        ("label", "process", ["p1"], "process: 'p1' became P1"),
        ("insight", "why", "It is the weather", "insight: written anew"),
        ("insight", "confidence", 87, "insight: written anew"),
        ("source", "author", "me", "author: taken out"),
    ],
)
def test_what_needs_no_guess_is_mended_and_told(document, part, key, value, note):
    document[part][key] = value
    example, notes = mended(document)
    assert note in "; ".join(notes)
    assert (example.answer.class_, example.answer.process) == ("cpu_spin", "P1")


def test_a_process_may_have_been_named_by_its_pid_or_in_words(document):
    pid = document["bundle"]["request"]["processes"][0]["key"]["pid"]
    comm = document["bundle"]["request"]["processes"][0]["comm"]
    for said in (pid, str(pid), f"{comm} (pid {pid})"):
        document["label"]["process"] = document["answer"]["process"] = said
        example, _ = mended(document)
        assert (example.label.processes, example.answer.process) == (("P1",), "P1")


def test_what_is_missing_and_follows_from_the_rest_is_added(document):
    for key in ("type", "schema", "id", "source", "insight"):
        del document[key]
    example, notes = mended(document)
    assert example.source == "unknown"
    assert example.id.startswith("cpu_spin-")
    assert len(notes) == 5


@pytest.mark.parametrize(
    "mangle",
    [
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.replace(b'"held_out": false,', b'"held_out": false, "more": NaN,'),
        lambda line: line[:-1] + b",}",
        lambda line: line + b"\r",
    ],
)
def test_marks_and_commas_too_many_are_taken_out(document, mangle):
    example, _ = mended(None, mangle(json.dumps(document).encode()))
    assert example.answer.class_ == "cpu_spin"


def test_a_bundle_that_was_put_into_a_text_is_taken_out_of_it(document):
    document["bundle"] = json.dumps(document["bundle"])
    assert "was a text" in mended(document)[1][0]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.pop("bundle"), "$.bundle"),
        (lambda d: d.pop("answer"), "$.answer"),
        (lambda d: d["answer"].pop("facts"), "$.answer"),
        (lambda d: d["answer"].update(facts=["f999"]), "$.answer"),
        (lambda d: d["answer"].update({"class": "bad mood"}), "$.answer.class"),
        (lambda d: d["answer"].update(process="nobody knows"), "$.answer.process"),
        (lambda d: d["answer"].update(confidence=400), "$.answer"),
        (lambda d: d["label"].update({"class": "bad mood"}), "$.label.class"),
        (lambda d: d["label"].update(process=["P1", "P99"]), "$.label.process"),
        (lambda d: d["bundle"]["request"].pop("facts"), "$.bundle"),
        (lambda d: d.update(schema=7), "$.schema"),
    ],
)
def test_nothing_is_invented(document, change, place):
    change(document)
    with pytest.raises(BadExample) as caught:
        repair(json.dumps(document).encode())
    assert caught.value.place == place


def test_repair_writes_what_it_could_mend_and_tells_the_rest(linnix, write, document, tmp_path):
    broken = dict(document, bundle=None)
    document["answer"]["confidence"] = 0.6
    path, out = write([document, broken, "{"]), tmp_path / "out.jsonl"
    said = linnix("repair", path, "-o", out, code=1)
    assert f"{path}:1: $.answer.confidence: 0.6 became 60" in said.err
    assert f"{path}:2: $.bundle: is missing" in said.err
    assert f"{path}:3: $: is no JSON object" in said.err
    assert "1 examples, 1 of them mended; 2 lines left out" in said.err
    assert linnix("validate", out).out == "1 examples, 0 mistakes\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_what_is_written_is_right_also_where_a_name_was_used_twice(
    linnix, write, document, tmp_path
):
    path, out = write([document, document]), tmp_path / "out.jsonl"
    said = linnix("repair", path, "-o", out, code=1)
    assert f"{path}:2: $.id: {document['id']} is the name of {path}:1, too" in said.err
    assert linnix("validate", out).out == "1 examples, 0 mistakes\n"


def test_repair_may_write_over_what_it_reads(linnix, write, document):
    document["answer"]["confidence"] = 0.6
    path = write([document])
    linnix("repair", path, "-o", path)
    assert linnix("validate", path).out == "1 examples, 0 mistakes\n"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_is_broken_is_mended_or_refused(document, data):
    """And what is mended is right, and has the facts and the true class that it had."""
    broken = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(["", "answer", "label", "insight", "source"]))
        within = broken.get(part) if part else broken
        if isinstance(within, dict) and within:
            within[data.draw(st.sampled_from(sorted(within)))] = data.draw(values)
    try:
        example = load_example(repair(json.dumps(broken).encode()).line)
    except BadExample:
        return
    assert example.bundle.request.facts
    if example.label is not None:
        said = broken["label"]["class"] if isinstance(broken["label"], dict) else broken["label"]
        assert example.label.class_.casefold()[:3] == str(said).strip().casefold()[:3]


# --- stats --------------------------------------------------------------------------------


def test_classes_are_counted(linnix, write, examples):
    unlabelled = attrs.evolve(examples[0], id="x", label=None, held_out=True, family=None)
    found = linnix("stats", "--json", write([*examples, unlabelled])).json["classes"]
    assert next(iter(found)) == "fork_storm"
    assert found["fork_storm"]["examples"] == 9
    assert found["fork_storm"]["labelled"] == found["fork_storm"]["agree"] == 8
    assert found["fork_storm"]["families"] == 4
    assert found["fork_storm"]["held_out"] == 1
    assert found["normal"]["examples"] == 8


def test_an_answer_that_is_not_what_its_label_says_is_counted(linnix, write, example):
    wrong = attrs.evolve(example, label=Label("normal"))
    found = linnix("stats", "--json", write([wrong])).json["classes"]
    assert (found["normal"]["labelled"], found["normal"]["agree"]) == (1, 0)


def test_counts_are_a_table_for_people(linnix, write, examples):
    lines = linnix("stats", write(examples)).out.splitlines()
    assert lines[0].startswith("CLASS")
    assert len(lines) == 8


def test_no_examples_and_wrong_ones(linnix, write):
    assert linnix("stats", write([])).out == "no examples\n"
    assert "$: is no JSON" in linnix("stats", write(["{"]), code=1).err
