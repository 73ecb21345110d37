"""The plan, doing it with git, undoing it, and the report."""

import json

import pytest

ARTEFACTS = {
    "h200-distilled-model/shard/a.bin": "12345",
    "linnix-3b-distilled.gguf": "GGUF",
    "training_data_2000.json": "[]",
    "scripts/distill_lora_to_3b.py": "x",
    "one/distill_linnix_model.ipynb": "1",
    "two/distill_linnix_model.ipynb": "22",
    "na\nme.ipynb": "x",
}


@pytest.fixture
def violating(made):
    for path, text in ARTEFACTS.items():
        made.write(path, text)
    made.commit()
    return made


@pytest.fixture
def enterprise(made, tmp_path):
    other = type(made)(tmp_path / "enterprise")
    other.write("README.md", "x")
    other.commit()
    return other


def files(repository):
    return set(repository.git("ls-files", "-z").split("\0")) - {""}


def test_the_plan_says_what_from_where_to_where_and_how_large(violating, audit):
    moves = json.loads(audit("split", "--plan", "--json", code=0))["moves"]
    assert {(move["from"], move["to"], move["size"]) for move in moves} == {
        ("h200-distilled-model/shard/a.bin", "models/h200-distilled-model/shard/a.bin", 5),
        ("linnix-3b-distilled.gguf", "models/linnix-3b-distilled.gguf", 4),
        (
            "training_data_2000.json",
            "datasets/training/training_data_2000.json",
            2,
        ),
        ("scripts/distill_lora_to_3b.py", "scripts/training/distill_lora_to_3b.py", 1),
        ("one/distill_linnix_model.ipynb", "notebooks/distill_linnix_model.ipynb", 1),
        ("two/distill_linnix_model.ipynb", "notebooks/two/distill_linnix_model.ipynb", 2),
        ("na\nme.ipynb", "notebooks/na\nme.ipynb", 1),
    }
    text = audit("split", "--plan", code=0)
    assert "scripts/distill_lora_to_3b.py -> scripts/training/distill_lora_to_3b.py (1 B)" in text
    assert "7 files to move, 16 B" in text
    assert violating.git("status", "--porcelain") == ""


def test_the_moves_are_two_commits_that_can_be_undone(violating, enterprise, audit):
    before = violating.git("rev-parse", "HEAD^{tree}"), enterprise.git("rev-parse", "HEAD^{tree}")
    said = audit("split", "--apply", "--to", enterprise.root, code=0)
    assert not files(violating) & set(ARTEFACTS)
    assert {"notebooks/na\nme.ipynb", "models/linnix-3b-distilled.gguf"} <= files(enterprise)
    assert "linnix-3b-distilled-q5_k_m.gguf" in files(violating)
    report = (violating.root / "SPLIT_REPORT.md").read_text()
    assert "**Status**: complete" in report
    assert "`scripts/distill_lora_to_3b.py` → `scripts/training/distill_lora_to_3b.py`" in report
    assert "`linnix-3b-distilled-q5_k_m.gguf` (9 B), allowed" in report
    audit("split", "--no-history", code=0)
    for line in said.splitlines():
        if line.startswith("undo: git -C "):
            _, _, _, root, *command = line.split(" ")
            repository = violating if root == str(violating.root) else enterprise
            assert repository.root.as_posix() == root
            repository.git(*command)
    after = violating.git("rev-parse", "HEAD^{tree}"), enterprise.git("rev-parse", "HEAD^{tree}")
    assert after == before


def test_within_one_repository_it_is_one_commit(violating, audit):
    violating.write("linnix-audit.toml", '[editions]\nfolders = ["enterprise"]\n')
    count = int((violating.commit(), violating.git("rev-list", "--count", "HEAD"))[1])
    audit("split", "--apply", "--to", violating.root / "enterprise", code=0)
    assert int(violating.git("rev-list", "--count", "HEAD")) == count + 1
    assert "enterprise/models/linnix-3b-distilled.gguf" in files(violating)


def test_a_dirty_tree_is_refused(violating, enterprise, audit):
    for repository in (violating, enterprise):
        repository.write("untracked.txt", "x")
        audit("split", "--apply", "--to", enterprise.root, code=1)
        (repository.root / "untracked.txt").unlink()
    assert set(ARTEFACTS) <= files(violating)


def test_what_is_there_already_is_not_overwritten(violating, enterprise, audit):
    enterprise.write("models/linnix-3b-distilled.gguf", "mine")
    enterprise.commit()
    audit("split", "--apply", "--to", enterprise.root, code=1)
    assert (enterprise.root / "models" / "linnix-3b-distilled.gguf").read_text() == "mine"
    assert set(ARTEFACTS) <= files(violating)


def test_a_link_does_not_lead_the_moves_elsewhere(violating, enterprise, audit, tmp_path):
    (tmp_path / "outside").mkdir()
    (enterprise.root / "models").symlink_to(tmp_path / "outside")
    enterprise.commit()
    audit("split", "--apply", "--to", enterprise.root, code=1)
    assert list((tmp_path / "outside").iterdir()) == []


def test_after_a_failure_both_are_as_they_were(violating, enterprise, audit):
    heads = violating.git("rev-parse", "HEAD"), enterprise.git("rev-parse", "HEAD")
    # Nothing can be committed there as long as somebody else does.
    (violating.root / ".git" / "refs" / "heads" / "main.lock").write_text("")
    audit("split", "--apply", "--to", enterprise.root, code=1)
    assert (violating.git("rev-parse", "HEAD"), enterprise.git("rev-parse", "HEAD")) == heads
    assert enterprise.git("status", "--porcelain") == ""
    assert violating.git("status", "--porcelain") == ""


def test_options_that_do_not_go_together_are_refused(audit, tmp_path):
    audit("split", "--plan", "--apply", "--to", tmp_path, code=2)
    audit("split", "--apply", code=2)
    audit("split", "--to", tmp_path, code=2)
    audit("split", "--report", tmp_path / "x", code=2)
