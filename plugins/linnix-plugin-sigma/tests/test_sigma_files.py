"""Folders of rules: what is read, and why some of it cannot be used."""

import json
import logging
import os
import re
import uuid

import pytest
from click.testing import CliRunner

from linnix_core import Batch, PluginUnavailable
from linnix_plugin_sigma import SigmaConfig, SigmaHandler
from linnix_plugin_sigma.command import sigma as command
from linnix_plugin_sigma.folder import MAX_FILE_BYTES

ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def check():
    """What ``linnix sigma check --json`` prints."""

    def check(path):
        done = CliRunner().invoke(command, ["check", str(path), "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        answer = json.loads(done.stdout)
        assert list(answer) == ["loaded", "unsupported"]
        assert all(list(entry) == ["file", "reason"] for entry in answer["unsupported"])
        return answer["loaded"], {e["file"]: e["reason"] for e in answer["unsupported"]}

    return check


# --- files that hold no rule to use -----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("---\n---\n", "empty"),
        ("title: [unclosed", "no YAML.* in line"),
        ("title: a: b", "no YAML: mapping values are not allowed.* in line 1"),
        ("a: 1\na: 2", "Duplicate key"),
        ("just a text", "no rule"),
        ("- a\n- b", "no rule"),
        ("date: 2024-99-99", "no YAML"),
        ("{" * 400, "levels"),
        ("[" * 500_000, "levels"),
        ("- " * 300_000, "levels"),
        ("a: &a [*a]", "Recursive|logsource"),
        ("a: &a {k: v}\nb: {<<: [*a, *a]}", "no YAML.*merge"),
        ("title: t\nlogsource: {product: linux, category: process_creation}", "detection"),
        ("title: t\ndetection: {a: {Image: x}, condition: a}", "log source"),
        ("title: t\nlogsource: 7\ndetection: {a: {Image: x}, condition: a}", "log ?source"),
    ],
)
def test_a_file_that_is_no_rule_says_why(rules, check, text, reason):
    loaded, unsupported = check(rules(broken=text))

    assert loaded == 0
    assert list(unsupported) == ["broken.yml"]
    assert re.search(reason, unsupported["broken.yml"]), unsupported


@pytest.mark.parametrize(
    ("logsource", "reason"),
    [
        ({"product": "windows", "category": "process_creation"}, "product windows"),
        ({"product": "linux", "category": "file_event"}, "category file_event"),
        ({"product": "linux", "service": "auditd"}, "no category"),
        ({"product": "linux", "category": "process_creation", "service": "x"}, "service x"),
    ],
)
def test_a_rule_for_other_logs_says_so(rules, check, sigma, logsource, reason):
    assert reason in check(rules(sigma(logsource=logsource)))[1]["rule0.yml"]


def test_a_rule_for_process_creation_everywhere_is_one_for_linux(rules, check, sigma):
    assert check(rules(sigma(logsource={"category": "process_creation"}))) == (1, {})


@pytest.mark.parametrize(
    ("detection", "reason"),
    [
        ({"Hashes": "x"}, "the field Hashes is not known here; those are Image, CommandLine"),
        ({"CommandLine|cidr": "10.0.0.0/8"}, "cidr is not supported"),
        ({"CommandLine|fieldref": "Image"}, "fieldref is not supported"),
        ({"LogonId|gt": 5}, "gt and gte are not supported"),
        ({"LogonId|hour": 5}, "parts of a time"),
        ({"CommandLine|expand": "%admins%"}, "%admins% is a placeholder"),
        ({"CommandLine|sounds_like": "x"}, "Unknown modifier"),
        ({"CommandLine|re": "(?=x)"}, "invalid perl operator"),
        ({"CommandLine|re": r"(a)\1"}, "invalid escape sequence"),
        ({"CommandLine|re": "(a{900}){900}"}, "invalid: invalid repetition size: .900.$"),
        ({"CommandLine|re": r"((\pL{20}){20}){2}"}, "too large"),
        ({"s": {"Image": "x"}, "condition": "s | count() > 5"}, "pipe syntax"),
        ({"s": {"Image": "x"}, "condition": "t"}, "'t' not defined"),
        ({"s": {"Image": "x"}, "condition": "s and"}, "Expected"),
        ({"s": {"Image": "x"}, "condition": "1 of t*"}, "doesn't match any"),
        ({"s": {"Image": "x"}, "condition": "not " * 900 + "s"}, "too deeply"),
        ({"s": {"Image": "x"}, "condition": "s or " * 900 + "s"}, "longer than 4096"),
        ({"s": {"Image": "x"}, "timeframe": "5m", "condition": "s"}, "timeframe"),
        ({"s": [None], "condition": "s"}, "keyword must be|must be bound"),
    ],
)
def test_a_rule_that_cannot_be_used_says_what_is_in_the_way(rules, check, sigma, detection, reason):
    loaded, unsupported = check(rules(sigma(detection), sigma()))

    assert loaded == 1
    assert re.search(reason, unsupported["rule0.yml"]), unsupported


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "x" * 300),
        ("level", "urgent"),
        ("id", "not-a-uuid"),
        ("id", 5),
        ("tags", ["without a namespace"]),
        ("date", "yesterday"),
        ("related", "x"),
    ],
)
def test_a_rule_that_breaks_the_specification_is_refused(rules, check, sigma, key, value):
    loaded, unsupported = check(rules(sigma(**{key: value})))

    assert (loaded, list(unsupported)) == (0, ["rule0.yml"])


def test_several_documents_are_several_rules(rules, check, sigma):
    windows = sigma(logsource={"product": "windows", "category": "process_creation"})

    loaded, unsupported = check(rules(f"{sigma()}---\n{windows}---\n{sigma()}"))

    assert loaded == 2
    assert unsupported == {
        "rule0.yml": "document 2: its logsource has the product windows, and not linux"
    }


def test_a_collection_shares_what_its_global_document_says(rules, check):
    collection = """
action: global
title: Both
logsource: {product: linux, category: process_creation}
---
detection: {a: {Image: x}, condition: a}
---
detection: {a: {Image: y}, condition: a}
"""

    assert check(rules(collection)) == (2, {})


def test_a_collection_is_judged_by_what_its_documents_make_together(rules, check):
    collection = """
action: global
title: No category
logsource: {product: linux}
detection: {a: {Image: x}, condition: a}
---
level: low
---
level: high
logsource: {category: process_creation}
"""

    loaded, unsupported = check(rules(collection))

    assert loaded == 1
    assert unsupported == {"rule0.yml": "its logsource has no category, and not process_creation"}


@pytest.mark.parametrize("kind", ["correlation", "filter"])
def test_what_is_about_other_rules_is_not_supported(rules, check, sigma, kind):
    text = f"title: x\n{kind}: {{type: event_count, rules: [a], group-by: [User]}}\n"

    loaded, unsupported = check(rules(f"{sigma()}---\n{text}"))

    assert loaded == 1
    assert f"document 2: {kind}s" in unsupported["rule0.yml"]


def test_of_two_rules_with_one_id_the_first_is_used(rules, check, sigma):
    folder = rules(a=sigma(id=ID), b=sigma(id=ID, title="Other"))

    assert check(folder) == (1, {"b.yml": "a.yml has a rule of the same id"})


# --- what lies in a folder ----------------------------------------------------------------


def test_files_below_are_read_and_others_passed_over(rules, check, sigma):
    folder = rules(sigma())
    for name in ("linux/deep/x.yaml", "linux/Y.YML", ".git/z.yml", ".hidden.yml", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(sigma())

    assert check(folder) == (3, {})


def test_a_path_may_be_one_file(rules, check, sigma):
    assert check(rules(sigma()) / "rule0.yml") == (1, {})


def test_links_are_followed_and_loops_end(rules, check, sigma, tmp_path):
    folder = rules(sigma())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.yml").write_text(sigma())
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    (folder / "one.yml").symlink_to("rule0.yml")
    (folder / "nowhere.yml").symlink_to("nothing")
    (folder / "circle.yml").symlink_to("circle.yml")

    loaded, unsupported = check(folder)

    assert loaded == 3
    assert unsupported == {
        "circle.yml": "it cannot be read: Too many levels of symbolic links",
        "nowhere.yml": "it cannot be read: No such file or directory",
    }


def test_what_is_no_text_is_refused_without_waiting_for_it(rules, check, sigma):
    folder = rules(sigma())
    (folder / "binary.yml").write_bytes(b"\x7fELF\xff\xfe")
    (folder / "zeros.yml").write_bytes(bytes(100))
    (folder / "huge.yml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    os.mkfifo(folder / "pipe.yml")

    loaded, unsupported = check(folder)

    assert loaded == 1
    assert unsupported.pop("zeros.yml").startswith("it is no YAML")
    assert unsupported == {
        "binary.yml": "it is no text in UTF-8",
        "huge.yml": "it is larger than 1024 KiB",
        "pipe.yml": "it is no regular file",
    }


def test_hostile_names_and_reasons_stay_on_their_line(rules, check):
    folder = rules()
    (folder / "evil\x1b[2J\n.yml").write_text('title: x\nlogsource: {product: "a\\e[2J\\nb"}')

    ((file, reason),) = check(folder)[1].items()

    assert file == "evil\\x1b[2J\\x0a.yml"
    assert "\\x1b[2J b" in reason


def test_people_get_a_line_for_each_rule_that_cannot_be_used(rules, sigma):
    folder = rules(sigma(), sigma({"Hashes": "x"}))

    done = CliRunner().invoke(command, ["check", str(folder)], catch_exceptions=False)

    first, last = done.stdout.splitlines()
    assert first.startswith("rule1.yml: the field Hashes is not known here")
    assert last == "1 rules can be used, 1 cannot"


def test_checking_nothing_is_an_error(tmp_path):
    done = CliRunner().invoke(command, ["check", str(tmp_path / "x")])

    assert done.exit_code == 2
    assert "does not exist" in done.stderr


# --- and what the handler makes of it -----------------------------------------------------


def test_the_handler_needs_a_folder(linnix_context, tmp_path):
    handler = SigmaHandler(SigmaConfig(path=str(tmp_path / "none")), linnix_context())

    with pytest.raises(PluginUnavailable, match="there is no such folder or file") as raised:
        handler.linnix_start()
    assert raised.value.hint


def test_the_handler_needs_a_rule_that_can_run(start, sigma):
    with pytest.raises(PluginUnavailable, match=r"there is no rule in .* that can run") as raised:
        start(sigma({"Hashes": "x"}))
    assert "linnix sigma check" in raised.value.hint


def test_what_cannot_be_used_is_logged_and_a_limit(start, sigma, caplog):
    caplog.set_level(logging.INFO)

    handler = start(sigma(), *[sigma({"Hashes": "x"})] * 30)

    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 21
    assert warnings[0].startswith("rule1.yml cannot be used: the field Hashes")
    assert warnings[-1].startswith("and 10 more: linnix sigma check ")
    assert "1 of 1 Sigma rules run" in caplog.text
    health = handler.linnix_health()
    assert health.status == "ok"
    assert health.limits[0].startswith("30 rules or files cannot be used, 1 rules run")
    metrics = {metric.name: metric.value for metric in handler.linnix_metrics()}
    assert metrics == {"sigma_rules": 1, "sigma_refused": 30, "sigma_matches": 0}


def test_rules_that_take_long_to_parse_are_there_for_the_first_batch(
    start, sigma, machine, monkeypatch
):
    monkeypatch.setattr("linnix_plugin_sigma.handler.START_S", -1)
    handler = start(*(sigma(title=f"Rule {number}", id=str(uuid.uuid4())) for number in range(5)))
    assert handler.linnix_health().status == "degraded"

    alerts = handler.linnix_handle(Batch([machine.run("/bin/nc")]))

    assert len(alerts) == 5
    assert handler.linnix_health().status == "ok"


def test_that_no_late_rule_can_run_is_degraded(start, sigma, monkeypatch):
    monkeypatch.setattr("linnix_plugin_sigma.handler.START_S", -1)
    handler = start(sigma({"Hashes": "x"}))

    handler.linnix_handle(Batch([]))

    health = handler.linnix_health()
    assert (health.status, health.reason) == ("degraded", "there is no rule that can run")
