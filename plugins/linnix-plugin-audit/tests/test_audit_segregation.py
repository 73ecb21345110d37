"""Nothing personal in what is generic, and keys nowhere."""

import json

import pytest

# Written in two halves, so that this file holds none.
KEY = "-----BEGIN " + "PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n"


@pytest.fixture
def found(audit):
    def run():
        document = json.loads(audit("segregation", "--json"))
        return {(each["rule"], each["path"], each["line"]) for each in document["findings"]}

    return run


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("personal-path", "cd /home/parthshah/linnix"),
        ("personal-path", "'mac': '/Users/scawful/Code'"),
        ("personal-path", r"D = 'C:\Users\scawful'"),
        ("personal-host", "http://192.168.1.7:8080/"),
        ("personal-host", "ssh me@medical-mechanica.local"),
        ("key", "token = 'ghp_" + "a" * 36 + "'"),
        ("key", "AKIA" + "ABCDEFGHIJKLMNOP"),
        ("key", KEY),
    ],
)
def test_something_personal_is_found_with_its_line(made, found, rule, text):
    made.write("plugins/linnix-plugin-open/src/x.py", f"# first\n# {text}")
    assert found() == {(rule, "plugins/linnix-plugin-open/src/x.py", 2)}


@pytest.mark.parametrize(
    "text",
    [
        "/home/you/.config", "/home/<name>", "/Users/me", "~/home/x", "https://x/home/parth",
        "threading.local", "~/.local/share", "version 10.4.2", "10.0.0.1", "192.168.0.0/16",
        "the line -----BEGIN " + "PRIVATE KEY----- begins", "AKIA" + "IOSFODNN7EXAMPLE",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_not_found(made, found, text):
    made.write("docs/x.md", text)
    assert found() == set()


def test_a_key_is_not_shown_and_found_in_every_edition(made, audit, found):
    made.write("plugins/linnix-plugin-blade/tests/x.txt", KEY)
    assert {rule for rule, _, _ in found()} == {"key"}
    assert "MIIE" not in audit("segregation", code=1)


def test_tests_may_hold_names_that_are_made_up(made, found):
    made.write("plugins/linnix-plugin-open/tests/x.py", "'/home/parthshah'")
    assert found() == set()


def test_what_is_somebodys_own_may_be_personal_and_nobody_imports_it(made, found):
    made.distribution("hafs-scawful", files={"src/x.toml": "path = '/home/scawful/x'"})
    path = "plugins/linnix-plugin-open/src/x.py"
    made.write(path, "import hafs_scawful")
    assert ("personal-path", "plugins/hafs-scawful/src/x.toml", 1) in found()
    made.write("linnix-audit.toml", '[segregation]\npersonal = ["hafs_scawful"]\n')
    assert found() == {("personal-import", path, 1)}


def test_a_repository_names_its_own_words(made, found):
    made.write("linnix-audit.toml", '[segregation]\nexcept = ["*.toml"]\nwords = ["mechanica"]\n')
    made.write("a.md", "the Mechanica host\nmechanical")
    assert found() == {("personal-word", "a.md", 1)}


def test_a_line_can_be_allowed_by_what_it_holds(made, found):
    made.write("a.md", "/home/parth/x\n/home/shah/x\n")
    made.write(
        "linnix-audit.toml",
        '[[allow]]\nrule = "personal-path"\npath = "a.md"\ntext = "parth"\n'
        'reason = "an example"\nreviewed = "2026-01-01"\n',
    )
    assert found() == {("personal-path", "a.md", 2)}


def test_where_a_link_leads_is_looked_at(made, found):
    (made.root / "link").symlink_to("/home/parthshah/models")
    assert found() == {("personal-path", "link", 1)}


def test_a_key_that_was_committed_once_is_still_there(made, audit):
    made.write("deploy.txt", KEY)
    brought = made.commit()
    made.write("deploy.txt", "no more")
    made.commit()
    (finding,) = json.loads(audit("segregation", "--json", code=1))["findings"]
    assert (finding["rule"], finding["path"], finding["where"], finding["commit"]) == (
        "key", "deploy.txt", "history", brought,
    )  # fmt: skip
    audit("segregation", "--no-history", code=0)
