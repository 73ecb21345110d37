"""Chats to train a model on: the prompts of the core, ids as replies, and splits that are apart."""

import collections
import json
import stat

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Bundle, Fact, narrowed, parse_answer, render_prompt
from linnix_plugin_insight import Label
from linnix_plugin_insight.chat import NotAsked, chat_of, gist
from linnix_plugin_insight.splitting import SPLITS, Entry, assign, leaks

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def chats(folder, split):
    return [
        json.loads(line)["messages"]
        for line in (folder / f"{split}.jsonl").read_text().splitlines()
    ]


@pytest.fixture
def exported(linnix, write, examples, tmp_path):
    folder = tmp_path / "chats"
    linnix("export", write(examples), "-o", folder, "--shares", "60/20/20")
    return folder


# --- chats --------------------------------------------------------------------------------


def test_a_chat_is_the_prompt_of_the_core_and_the_reply_that_it_reads(examples):
    for example in examples:
        *prompt, reply = chat_of(example)
        request = example.bundle.request
        assert prompt == render_prompt(request)
        assert reply["role"] == "assistant"
        assert parse_answer(reply["content"], request) == example.answer


def test_a_reply_holds_ids_and_no_names(example):
    reply = json.loads(chat_of(example)[-1]["content"])
    assert set(reply) == {"class", "confidence", "process", "facts", "actions"}
    assert reply["process"] == "P1"


def test_nobody_is_a_word(bundle, ask):
    from linnix_plugin_insight.making import make_example

    example = make_example(bundle, ask, label=Label("normal"))
    assert json.loads(chat_of(example)[-1]["content"])["process"] == "none"


def test_a_narrow_prompt_has_what_a_small_model_gets(example):
    many = tuple(Fact(f"thing {n}", n, "1", "P1", f"f{n}") for n in range(1, 40))
    request = attrs.evolve(example.bundle.request, facts=many)
    answer = attrs.evolve(example.answer, facts=("f2", "f30"))
    wide = attrs.evolve(example, bundle=Bundle(request), answer=answer)
    prompt, reply = chat_of(wide, narrow=True)[1:]
    assert prompt["content"] == render_prompt(narrowed(request))[1]["content"]
    assert json.loads(reply["content"])["facts"] == ["f2"]
    late = attrs.evolve(wide, answer=attrs.evolve(answer, facts=("f30",)))
    with pytest.raises(NotAsked):
        chat_of(late, narrow=True)


# --- the files ----------------------------------------------------------------------------


def test_everything_is_in_one_of_three_private_files(exported):
    assert sum(len(chats(exported, split)) for split in SPLITS) == 56
    for file in exported.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_class_is_in_every_split(exported):
    report = json.loads((exported / "splits.json").read_text())
    for split in SPLITS:
        assert len(report["splits"][split]["classes"]) == 7
    assert report["leaks"] == []


def test_a_family_is_in_one_split(exported):
    report = json.loads((exported / "splits.json").read_text())
    homes = collections.defaultdict(set)
    for split, part in report["splits"].items():
        for name in part["ids"]:
            homes[name.rpartition("-")[0]].add(split)
    assert {len(splits) for splits in homes.values()} == {1}


def test_the_same_examples_are_split_alike_in_any_order(linnix, write, examples, tmp_path):
    found = []
    for name, order in (("a", examples), ("b", examples[::-1])):
        linnix("export", write(order, f"{name}.jsonl"), "-o", tmp_path / name)
        report = json.loads((tmp_path / name / "splits.json").read_text())
        found.append({s: sorted(part["ids"]) for s, part in report["splits"].items()})
    assert found[0] == found[1]


def test_another_seed_splits_differently(linnix, write, examples, tmp_path):
    path = write(examples)
    for seed in (0, 1):
        linnix("export", path, "-o", tmp_path / str(seed), "--seed", seed)
    first, second = (json.loads((tmp_path / s / "splits.json").read_text()) for s in "01")
    assert first["splits"]["train"]["ids"] != second["splits"]["train"]["ids"]


def test_what_is_held_out_is_in_the_test_with_its_family(linnix, write, examples, tmp_path):
    marked = attrs.evolve(examples[2], held_out=True)
    everyone = [*examples[:2], marked, *examples[3:]]
    linnix("export", write(everyone), "-o", tmp_path / "out", "--shares", "90/10/0")
    report = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert {marked.id, examples[3].id} == set(report["splits"]["test"]["ids"])


def test_the_same_prompt_is_written_once(linnix, write, examples, tmp_path):
    again = attrs.evolve(examples[0], id="again")
    said = linnix("export", write([*examples, again]), "-o", tmp_path / "out")
    assert "left out: 1 that were there already" in said.err


def test_two_truths_about_one_prompt_are_a_contradiction(linnix, write, examples, tmp_path):
    answer = attrs.evolve(examples[0].answer, confidence=11)
    insight = {**examples[0].insight, "confidence": 0.11}
    other = attrs.evolve(examples[0], id="other", answer=answer, insight=insight)
    said = linnix("export", write([*examples, other]), "-o", tmp_path / "out")
    assert "1 that contradict" in said.err
    assert "the same prompt has another reply" in said.err


def test_what_nobody_has_looked_at_is_left_out_unless_wanted(linnix, write, examples, tmp_path):
    path = write([attrs.evolve(examples[0], label=None), *examples[1:]])
    said = linnix("export", path, "-o", tmp_path / "out")
    assert f"{path}:1: left out: nobody has said what is true of it" in said.err
    assert "1 others" in said.err
    assert "0 others" in linnix("export", path, "-o", tmp_path / "out", "--unlabelled").err


def test_an_answer_that_is_not_true_is_not_taught(linnix, write, examples, tmp_path):
    wrong = attrs.evolve(examples[0], label=Label("normal"))
    said = linnix("export", write([wrong, *examples[1:]]), "-o", tmp_path / "out")
    assert "its answer is not what its label says" in said.err


def test_wrong_lines_are_told_once_and_the_rest_is_written(linnix, write, examples, tmp_path):
    path = write(["{", *examples])
    said = linnix("export", path, "-o", tmp_path / "out", code=1)
    assert said.err.count(f"{path}:1: ") == 1
    assert sum(len(chats(tmp_path / "out", split)) for split in SPLITS) == 56


@pytest.mark.parametrize("shares", ["80/20", "a/b/c", "50/50/50", "120/-10/-10"])
def test_shares_are_three_numbers_that_add_up(linnix, write, example, tmp_path, shares):
    assert "--shares" in linnix(
        "export", write([example]), "-o", tmp_path / "out", "--shares", shares, code=2
    ).err  # fmt: skip


def test_a_pipe_cannot_be_read_twice(linnix, tmp_path):
    said = linnix("export", "-", "-o", tmp_path / "out", code=1, stdin="")
    assert "more than once" in said.err


def test_a_folder_that_cannot_be_made_is_told(linnix, write, examples, tmp_path):
    (tmp_path / "file").write_text("")
    said = linnix("export", write(examples), "-o", tmp_path / "file" / "out", code=1)
    assert "cannot write" in said.err


# --- splits and leaks ---------------------------------------------------------------------


def entry(class_, *kin, held_out=False):
    names = tuple(name.encode() for name in kin)
    return Entry(class_, names, repr(kin).encode(), b"", held_out)


names = st.integers(0, 12).map(lambda n: f"kin{n}")
entries = st.lists(
    st.builds(
        lambda class_, kin, held_out: entry(class_, *kin, held_out=held_out),
        st.sampled_from(["cpu_spin", "normal"]),
        st.lists(names, min_size=1, max_size=2),
        st.booleans() | st.just(False),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(entries, st.integers(0, 5))
def test_kin_are_never_in_two_splits_and_what_is_held_out_is_in_the_test(given_entries, seed):
    chosen, _ = assign(given_entries, SHARES, seed)
    assert len(chosen) == len(given_entries)
    homes = collections.defaultdict(set)
    for one, split in zip(given_entries, chosen, strict=True):
        for kin in one.kin:
            homes[kin].add(split)
        assert split == "test" or not one.held_out
    assert {len(splits) for splits in homes.values()} <= {1}


def test_each_split_gets_about_its_share():
    many = [entry("cpu_spin", f"family{n}") for n in range(200)]
    counts = collections.Counter(assign(many, SHARES)[0])
    assert counts == {"train": 160, "valid": 20, "test": 20}


def test_a_leak_is_found_word_for_word_and_but_for_numbers():
    found = list(
        leaks(
            [
                (
                    "train",
                    1,
                    "f1 forks = 312 forks (P1)\nP1  4412  bash  9.9  1.0\na1 look at 4412",
                ),
                ("train", 2, "f1 cpu = 99 %"),
                ("valid", 1, "f1 cpu = 99 %"),
                ("test", 1, "f1 forks = 287 forks (P1)\nP1   77  bash  9.8  1.1\na1 look at 77"),
                ("test", 2, "f1 cpu = 50 %"),
            ]
        )
    )
    assert [(leak.kind, leak.split, leak.other) for leak in found] == [
        ("same", "valid", "train"),
        ("alike", "test", "train"),
    ]
    assert str(found[0]) == "valid:1 is the same as train:2"


@given(st.text())
def test_any_text_has_a_gist(text):
    assert gist(gist(text)) is not None


def test_a_leak_ends_the_export_with_an_error(linnix, write, examples, tmp_path, monkeypatch):
    from linnix_plugin_insight import exporting

    def badly(entries, shares, seed):
        return [SPLITS[n % 3] for n in range(len(entries))], {}

    monkeypatch.setattr(exporting, "assign", badly)
    said = linnix("export", write(examples), "-o", tmp_path / "out", code=1)
    assert "but for numbers the same as" in said.err
