"""Every rule of the split is broken once, and the audit says where."""

import json
import tarfile
from pathlib import Path

import pytest

APACHE = "Apache-2.0"
ENTERPRISE = "LicenseRef-Linnix-Enterprise"


@pytest.fixture
def found(audit):
    """The findings of one run: rule, path, where."""

    def run(kind="split", *args):
        document = json.loads(audit(kind, "--json", *args))
        return {(each["rule"], each["path"], each["where"]) for each in document["findings"]}

    return run


def test_a_clean_repository_is_clean(audit):
    assert audit("split", code=0) == "audit split: 0 findings\n"
    assert json.loads(audit("split", "--json", code=0)) == {
        "audit": "split", "clean": True, "findings": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("weights", "h200-distilled-model/config.json"),
        ("weights", "linnix-3b-distilled.gguf"),
        ("weights", "plugins/linnix-plugin-open/src/Model.SafeTensors"),
        ("training-data", "training_data_progress_2000.json"),
        ("training-data", "datasets/training/more.txt"),
        ("training-logs", "runpod_migration_1/log"),
        ("training-scripts", "scripts/h200_premium_trainer.py"),
        ("training-scripts", "distill_lora_to_3b.py"),
        ("training-scripts", "monitor_runpod_distillation.sh"),
        ("training-scripts", "build_500_dataset.sh"),
        ("notebooks", "distill_linnix_model.ipynb"),
        ("training-documents", "docs/runpod-distillation.md"),
        ("key-file", "deploy/id_rsa"),
    ],
)
def test_an_artefact_is_found_by_its_name(made, found, rule, path):
    made.write(path, "x")
    assert found("split", "--no-history") == {(rule, path, "tree")}


def test_weights_are_found_whatever_they_are_called(made, found):
    made.write("notes.txt", b"GGUF\x03\x00\x00\x00")
    assert found() == {("weights", "notes.txt", "tree")}


def test_what_the_open_edition_keeps_is_not_found(made, found):
    for path in ("serve_distilled_model.sh", "benchmark_distilled_model.sh", "test_h200_model.py",
                 ".env.distilled", "src/training.py", "docs/trains.md"):  # fmt: skip
        made.write(path, "x")
    assert found() == set()


def test_the_demo_model_is_allowed_up_to_its_size(made, found):
    made.write(
        "linnix-audit.toml",
        '[[allow]]\nrule = "weights"\npath = "m.gguf"\nreason = "r"\nreviewed = "2026"\n'
        'most = "1KB"\n[limits]\nfile = "4KB"\n',
    )
    made.write("m.gguf", b"GGUF")
    assert found() == set()
    made.write("m.gguf", b"GGUF" * 300)
    assert found() == {("weights", "m.gguf", "tree")}


def test_only_the_very_file_is_allowed_by_its_hash(made, found):
    made.write(
        "linnix-audit.toml",
        '[[allow]]\nrule = "weights"\npath = "*.gguf"\nreason = "r"\nreviewed = "2026"\n'
        'sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"\n',
    )
    made.write("a.gguf")
    made.write("b.gguf", "x")
    assert found("split", "--no-history") == {("weights", "b.gguf", "tree")}


# --- code ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("from linnix_plugin_blade.x import y", "enterprise-import"),
        ("def f():\n    import linnix_plugin_enterprise", "enterprise-import"),
        ("import importlib\nimportlib.import_module('linnix_plugin_blade')", "enterprise-import"),
        ("print 'python 2'\nimport os, linnix_plugin_blade", "enterprise-import"),
        ("from peft import LoraConfig", "training-import"),
    ],
)
def test_open_code_imports_nothing_enterprise(made, found, code, rule):
    path = "plugins/linnix-plugin-open/src/linnix_plugin_open/more.py"
    made.write(path, code)
    assert found() == {(rule, path, "tree")}


def test_code_that_only_speaks_of_it_is_fine(made, found):
    made.write("a.py", "'''import linnix_plugin_blade'''\nfrom .linnix_plugin_blade import x\n")
    assert found() == set()


def test_an_open_distribution_requires_no_enterprise_one(made, found):
    made.distribution("linnix-plugin-open", requires=["linnix-core", "linnix-plugin-blade"])
    path = "plugins/linnix-plugin-open/pyproject.toml"
    assert found() == {("enterprise-requirement", path, "tree")}


# --- licences -----------------------------------------------------------------------------


@pytest.mark.parametrize("licence", [ENTERPRISE, "AGPL-3.0-only", "nonsense !", ""])
def test_an_open_distribution_has_an_open_licence(made, found, licence):
    made.distribution("linnix-plugin-open", licence=licence)
    assert found() == {("licence", "plugins/linnix-plugin-open/pyproject.toml", "tree")}


def test_an_enterprise_distribution_has_its_licence_and_the_text_of_it(made, found):
    made.distribution("linnix-plugin-blade", requires=["linnix-plugin-enterprise"])
    made.write("plugins/linnix-plugin-blade/LICENSE", "Apache License")
    path = "plugins/linnix-plugin-blade/pyproject.toml"
    assert found() == {("licence", path, "tree"), ("licence-file", path, "tree")}


def test_headers_fit_the_edition_and_are_there_where_they_must(made, found):
    made.write("a.py", f"# SPDX-License-Identifier: {ENTERPRISE}\n")
    made.write("b.py", f"# SPDX-License-Identifier: {APACHE}\n")
    made.write("c.py", "X = 'SPDX-License-Identifier: nothing'\n")
    made.write("x.bpf.c", "int x;\n")
    made.write("y.bpf.c", "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\n")
    assert found() == {("header", "a.py", "tree"), ("header", "x.bpf.c", "tree")}


# --- sizes and records --------------------------------------------------------------------


def test_files_have_a_limit(made, found):
    made.write("big.txt", "x" * 4001)
    assert found() == {("large-file", "big.txt", "tree")}


def test_all_files_and_the_history_have_a_limit(made, found):
    made.write("linnix-audit.toml", '[limits]\ntree = "1KB"\nhistory = "100B"\n')
    assert found() == {("tree-size", "", "tree"), ("history-size", "", "history")}


@pytest.mark.parametrize(
    "text", ['{"prompt": 1, "completion": 2}', '[{"instruction": 1, "output": 2}]']
)
def test_fifty_examples_are_open_and_no_more(made, found, text):
    made.write("datasets/examples/one.json", text)
    assert found() == {
        ("example-records", "datasets/examples/one.json", "tree"),
        ("example-records", "datasets/examples/50.jsonl", "tree"),
    }


# --- the history --------------------------------------------------------------------------


def test_what_was_committed_once_is_found_with_the_commit_that_brought_it(made, audit):
    made.write("old/weights.gguf", "x")
    brought = made.commit()
    made.write("old/weights.gguf", "y")
    made.commit()
    made.git("rm", "-q", "-r", "old")
    made.commit()
    (finding,) = json.loads(audit("split", "--json", code=1))["findings"]
    assert (finding["path"], finding["where"]) == ("old/weights.gguf", "history")
    assert finding["commit"] == brought
    audit("split", "--no-history", code=0)


def test_a_merge_that_brings_something_of_its_own_is_found(made, found):
    made.git("checkout", "-q", "-b", "side")
    made.write("side.txt", "x")
    made.commit()
    made.git("checkout", "-q", "main")
    made.write("main.txt", "x")
    made.commit()
    made.git("merge", "-q", "--no-ff", "--no-commit", "side")
    made.write("evil.ipynb", "x")
    made.commit()
    made.git("rm", "-q", "evil.ipynb")
    made.commit()
    assert found() == {("notebooks", "evil.ipynb", "history")}


def test_a_branch_and_a_tag_are_history_and_the_stash_is_not(made, found):
    made.git("checkout", "-q", "-b", "side")
    made.write("a.ipynb", "x")
    made.commit()
    made.git("checkout", "-q", "main")
    made.write("README.md", "changed")
    made.write("stashed.ipynb", "x")
    made.git("add", "-A")
    made.git("stash", "-q")
    assert found() == {("notebooks", "a.ipynb", "history")}


def test_large_files_are_found_in_the_history(made, found):
    made.write("big.txt", "x" * 5000)
    made.commit()
    made.write("big.txt", "small")
    made.commit()
    assert found() == {("large-file", "big.txt", "history")}


def test_a_shallow_clone_proves_nothing(made, found, audit, tmp_path):
    made.commit()
    clone = tmp_path / "clone"
    made.git("clone", "-q", "--depth", "1", f"file://{made.root}", str(clone))
    document = json.loads(audit("split", "--json", root=clone, code=1))
    assert [each["rule"] for each in document["findings"]] == ["history-incomplete"]


def test_weights_are_found_in_the_history_whatever_they_are_called(made, found):
    made.write("notes.txt", b"GGUF\n" * 10)
    made.write("plugins/linnix-plugin-blade/notes.txt", b"GGUF of the blade")
    made.commit()
    made.write("notes.txt", "notes")
    made.commit()
    assert found() == {("weights", "notes.txt", "history")}


def test_a_history_of_which_files_are_missing_proves_nothing(made, found):
    blob = made.git("rev-parse", "HEAD:README.md")
    made.write("README.md", "changed")
    made.commit()
    (made.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    assert found() == {("history-incomplete", "", "history")}


HOSTILE = ["a\nb.ipynb", " lead.ipynb", ":x.ipynb", "-rf.ipynb", 'q"\t.ipynb', "commit.ipynb/\x1b"]


def test_hostile_names_are_found_in_tree_and_history(made, audit, found):
    for name in HOSTILE:
        made.write(name, "x")
    bad = b"\xff\xfe.ipynb"
    Path(made.root / bad.decode("utf-8", "surrogateescape")).write_bytes(b"x")
    names = {path for _, path, _ in found()}
    assert names >= set(HOSTILE[:5]) | {"\\udcff\\udcfe.ipynb"}
    made.commit()
    made.git("rm", "-q", "-r", ".", "--", ":!linnix-audit.toml")
    made.commit()
    assert {path for _, path, where in found() if where == "history"} >= set(HOSTILE[:5])
    assert "\x1b" not in audit("split")
    assert json.loads(audit("split", "--sarif"))["version"] == "2.1.0"


def test_the_environment_and_the_configuration_of_a_repository_change_nothing(
    made, found, monkeypatch, tmp_path
):
    trap = tmp_path / "trap"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {trap}")
    monkeypatch.delenv("GIT_CONFIG_GLOBAL")
    with (made.root / ".git" / "config").open("a") as file:
        file.write(f'[core]\n fsmonitor = "touch {trap}"\n[diff]\n external = "touch {trap}"\n')
    made.write("a.ipynb", "x")
    assert found() == {("notebooks", "a.ipynb", "tree")}
    assert not trap.exists()


def test_a_link_is_not_followed(made, found, tmp_path):
    (tmp_path / "outside").write_bytes(b"GGUF")
    (made.root / "link").symlink_to(tmp_path / "outside")
    (made.root / "gone").symlink_to("nowhere")
    assert found() == set()


# --- wheels -------------------------------------------------------------------------------

MIT = "Name: made\nLicense-Expression: MIT\n"


def test_wheels_are_looked_into(found, wheel):
    folder = wheel(
        MIT + "Requires-Dist: linnix-plugin-blade\n",
        made__a="GGUF",
        **{"made__b.py": "import linnix_plugin_blade", "made__c.ipynb": "{}"},
    )
    name = "made-1-py3-none-any.whl"
    assert found("split", "--wheels", folder) == {
        ("weights", "made/a", name),
        ("enterprise-import", "made/b.py", name),
        ("notebooks", "made/c.ipynb", name),
        ("enterprise-requirement", "made-1.dist-info/METADATA", name),
    }


def test_an_enterprise_wheel_may_hold_what_is_enterprise(found, wheel):
    said = (
        f"Name: made\nLicense-Expression: {ENTERPRISE}\nRequires-Dist: linnix-plugin-enterprise\n"
    )
    assert found("split", "--wheels", wheel(said, made__a="GGUF")) == set()


def test_a_source_distribution_is_looked_into(found, tmp_path):
    folder = tmp_path / "sdist"
    source = folder / "made-1"
    source.mkdir(parents=True)
    (source / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: made\n")
    (source / "a.ipynb").write_text("{}")
    with tarfile.open(folder / "made-1.tar.gz", "w:gz") as packed:
        packed.add(source, "made-1")
    assert found("split", "--wheels", folder) == {
        ("notebooks", "made-1/a.ipynb", "made-1.tar.gz"),
        ("licence", "made-1/PKG-INFO", "made-1.tar.gz"),
    }


def test_a_broken_wheel_is_a_finding(found, tmp_path, audit):
    (tmp_path / "a.whl").write_text("no zip")
    assert found("split", "--wheels", tmp_path) == {("unreadable", "a.whl", "a.whl")}
    audit("split", "--wheels", tmp_path / "made", code=2)


# --- how it is told -----------------------------------------------------------------------


def test_sarif_names_rule_file_and_line(made, audit):
    made.write("a b.py", "\nimport linnix_plugin_blade")
    log = json.loads(audit("split", "--sarif", code=1))
    (run,) = log["runs"]
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b.py"
    assert place["region"] == {"startLine": 2}
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "enterprise-import"


def test_findings_can_be_written_to_a_file(made, audit, tmp_path):
    made.write("a.ipynb", "x")
    audit("split", "-o", tmp_path / "found.txt", code=1)
    assert (tmp_path / "found.txt").read_text() == "a.ipynb: notebooks: a notebook\n"
    audit("split", "-o", tmp_path / "no" / "folder", code=2)


@pytest.mark.parametrize(
    "text",
    [
        "[", "[limits]\nfile = 'much'", "[limit]\nx = 1", "[[artefacts]]\nrule = 'x'",
        "[[patterns]]\nrule='x'\nmessage='m'\npattern='('",
        "[[allow]]\nrule='x'\npath='y'\nreason=''\nreviewed='z'",
        "[[artefacts]]\nrule='x'\nmessage='m'\nnames=[]\nto='../x'",
        "[[artefacts]]\nrule='x'\nmessage='m'\nnames=[]\nmagic=['xyz']",
    ],
)  # fmt: skip
def test_rules_that_are_wrong_are_refused(made, audit, tmp_path, text):
    (tmp_path / "rules.toml").write_text(text)
    audit("split", "--rules", tmp_path / "rules.toml", code=2)


def test_what_is_no_repository_is_refused(audit, tmp_path):
    audit("split", root=tmp_path / "nowhere", code=2)
    (tmp_path / "plain").mkdir()
    audit("split", root=tmp_path / "plain", code=2)


def test_records_that_were_looked_at_do_not_count(made, found):
    made.write("datasets/held-out/more.jsonl", '{"insight": {}, "bundle": {}}\n')
    assert len(found()) == 2
    made.write(
        "linnix-audit.toml",
        '[[allow]]\nrule = "example-records"\npath = "datasets/held-out/*"\n'
        'reason = "what is scored on"\nreviewed = "2026"\n[limits]\nfile = "4KB"\n',
    )
    assert found() == set()
