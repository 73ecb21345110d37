"""What a rule recognises: fields, modifiers and conditions, as Sigma defines them."""

import base64
import fnmatch
import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigma.collection import SigmaCollection

from linnix_plugin_sigma.execution import FIELDS, Execution
from linnix_plugin_sigma.matching import compile_condition, image_names

ME = pwd.getpwuid(os.getuid()).pw_name


# --- fields -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detection",
    [
        {"Image": "/usr/bin/nc"},
        {"CommandLine": "/usr/bin/nc -l 4444"},
        {"User": ME},
        {"LogonId": os.getuid()},
        {"LogonId": str(os.getuid())},
        {"CurrentDirectory": "/srv/www"},
        {"CommandLine|contains": "444", "CurrentDirectory|startswith": "/srv"},
    ],
)
def test_a_field_is_what_the_kernel_says_of_the_exec(matches, detection):
    assert matches(detection, uid=os.getuid(), cwd="/srv/www")


def test_arguments_are_joined_by_spaces_and_not_quoted(matches):
    assert matches({"CommandLine": "sh -c echo a  b"}, args=("sh", "-c", "echo a  b"))


@pytest.mark.parametrize("field", ["ParentImage", "ParentCommandLine"])
def test_the_parent_is_what_it_was_at_that_moment(alerts, sigma, machine, field):
    shell = machine.run("/bin/sh -c a", comm="sh")
    child = machine.event("fork", parent=shell)
    events = [
        shell,
        child,
        machine.run("/usr/bin/nc", child, parent=shell),
        machine.run("/bin/innocent", shell),
        machine.run("/usr/bin/nc -v", child),
    ]
    detection = {"CommandLine|contains": "nc", f"{field}|startswith": "/bin/sh"}

    assert [alert.ts_ns for alert in alerts(sigma(detection), *events)] == [events[2].ts_ns]


def test_a_child_that_forked_but_did_not_exec_runs_what_its_parent_runs(alerts, sigma, machine):
    server = machine.run("/usr/sbin/apache2 -k start")
    worker = machine.event("fork", parent=server)
    shell = machine.event("fork", parent=worker)
    detection = {"ParentImage|endswith": "/apache2", "ParentCommandLine|endswith": "-k start"}

    assert alerts(sigma(detection), server, worker, shell, machine.run("/bin/sh -i", shell))


def test_a_user_without_a_name_is_its_number(matches):
    assert matches({"User": "3999999999"}, uid=3_999_999_999)


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_not_known_contains_nothing_and_is_null(matches, field):
    bare = {"exe": None, "args": None, "cwd": None, "uid": None}

    assert matches({field: None}, **bare)
    assert not matches({f"{field}|contains": "*"}, **bare)
    assert not matches({f"{field}|re": "^"}, **bare)
    assert not matches({field: ""}, **bare)


def test_only_an_exec_is_judged(alerts, sigma, machine):
    others = [machine.event(kind, exe="/bin/nc", args=("nc",)) for kind in ("seen", "fork", "exit")]

    assert alerts(sigma(), *others) == []


# --- values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detection", "command", "expected"),
    [
        ({"Image|endswith": "/NC"}, "/usr/bin/nc", True),
        ({"Image|endswith": "/nc"}, "/USR/BIN/NC", True),
        ({"Image|endswith": "/nc"}, "/usr/bin/rsync", False),
        ({"Image|endswith": ["/nc", "/ncat"]}, "/opt/ncat", True),
        ({"Image|startswith": ["/tmp/", "/dev/shm/"]}, "/dev/shm/x", True),
        ({"Image|startswith": "/tmp/"}, "/var/tmp/x", False),
        ({"Image|contains": "/cron"}, "/etc/cron.d/x", True),
        ({"CommandLine|contains|all": ["-e", "4444"]}, "/bin/nc -e sh a 4444", True),
        ({"CommandLine|contains|all": ["-e", "4444"]}, "/bin/nc -l 4444", False),
        ({"CommandLine|endswith": " /"}, "/bin/ls -i /", True),
        ({"CommandLine": "/bin/ls -?? /*"}, "/bin/ls -id /etc", True),
        ({"CommandLine": "/bin/ls -?? /*"}, "/bin/ls -i /etc", False),
        ({"CommandLine|contains": "a*b?d"}, "/bin/x _AxxBcD_", True),
        ({"CommandLine|contains": r"a\*b"}, "/bin/x a*b", True),
        ({"CommandLine|contains": r"a\*b"}, "/bin/x axb", False),
        ({"CommandLine|contains": r"C:\\a?"}, r"/bin/x c:\ab", True),
        ({"CommandLine|contains|cased": "-R"}, "/bin/ls -R", True),
        ({"CommandLine|contains|cased": "-R"}, "/bin/ls -r", False),
        ({"CommandLine|cased": "/bin/l* -R"}, "/bin/ls -R", True),
        ({"CommandLine|cased": "/bin/l* -R"}, "/bin/ls -r", False),
        ({"CommandLine|re": r"\s-O\s"}, "/bin/wget -O x", True),
        ({"CommandLine|re": r"\s-O\s"}, "/bin/wget -o x", False),
        ({"CommandLine|re|i": r"\s-O\s"}, "/bin/wget -o x", True),
        ({"CommandLine|re": "(.){200,}"}, "/bin/file " + "x" * 200, True),
        ({"CommandLine|re": r"^\S+ a\*\\b$"}, r"/bin/x a*\b", True),
        ({"CommandLine|re": ["^x", "b$"]}, "/bin/ab", True),
        ({"CommandLine|re|contains": "a|b$"}, "/bin/x a y", True),
        ({"CommandLine|windash|contains": " -s "}, "/bin/x /s y", True),
        ({"CommandLine|contains": 4444}, "/bin/nc 4444", None),
        ({"CommandLine|base64|contains": "foo"}, "/bin/x Zm9v", True),
        ({"Image|exists": True}, "/bin/x", True),
        ({"Image|exists": False}, "/bin/x", False),
        ({"Image|endswith|neq": "/sh"}, "/bin/nc", True),
        ({"Image|endswith|neq": "/sh"}, "/bin/sh", False),
        ({"Image": []}, "/bin/sh", False),
    ],
)
def test_a_value_is_compared_as_its_modifiers_say(
    matches, start, sigma, detection, command, expected
):
    if expected is None:
        with pytest.raises(Exception, match="no rule"):
            start(sigma(detection))
    else:
        assert matches(detection, command) is expected


@pytest.mark.parametrize("shift", range(3))
def test_base64offset_finds_a_text_wherever_it_is_encoded(matches, shift):
    encoded = base64.b64encode(b"x" * shift + b"/bin/bash -i").decode()

    assert matches({"CommandLine|base64offset|contains": "/bin/bash"}, f"/bin/echo {encoded}")


def test_a_keyword_may_stand_in_any_field(matches):
    for keyword in ("PASSWD", "etc*shadow", "/usr/bin", 4711, {"|re": "pass(wd|word)"}):
        detection = {"keywords": [keyword], "condition": "keywords"}
        assert matches(detection, "/usr/bin/cat 4711 /etc/passwd /etc/shadow", cwd="/"), keyword
        assert not matches(detection, "/bin/true", cwd="/"), keyword


def test_keywords_may_all_be_wanted(matches):
    detection = {"keywords": {"|all": ["passwd", "/srv"]}, "condition": "keywords"}

    assert matches(detection, "/bin/cat /etc/passwd", cwd="/srv")
    assert not matches(detection, "/bin/cat /etc/passwd", cwd="/")


# --- conditions ---------------------------------------------------------------------------

PARTS = {
    "selection_a": {"CommandLine|contains": "a1"},
    "selection_b": {"CommandLine|contains": "b1"},
    "filter_main_x": {"CommandLine|contains": "x1"},
    "filter_main_y": {"CommandLine|contains": "y1"},
}


@pytest.mark.parametrize(
    ("condition", "words", "others"),
    [
        ("selection_a", "a1", "b1"),
        ("selection_a and selection_b", "a1 b1", "a1"),
        ("selection_a or selection_b", "b1", "x1"),
        ("1 of selection_*", "b1", "x1"),
        ("any of selection_*", "b1", "x1"),
        ("all of selection_*", "a1 b1", "a1"),
        ("all of them", "a1 b1 x1 y1", "a1 b1 x1"),
        ("1 of them", "y1", "none"),
        ("selection_a and not 1 of filter_main_*", "a1", "a1 y1"),
        ("selection_a and not all of filter_main_*", "a1 x1", "a1 x1 y1"),
        ("(selection_a and filter_main_x) or selection_b", "a1 x1", "a1"),
        ("not selection_a", "b1", "a1"),
        ("selection_a and not (filter_main_x or filter_main_y)", "a1 b1", "a1 x1"),
        (["selection_a", "selection_b"], "b1", "x1"),
    ],
)
def test_a_condition_joins_selections(matches, condition, words, others):
    detection = {**PARTS, "condition": condition}

    assert matches(detection, f"/bin/x {words}")
    assert not matches(detection, f"/bin/x {others}")


def test_a_map_wants_all_of_its_fields_and_a_list_of_maps_one_map(matches):
    detection = {
        "selection": [
            {"Image|endswith": "/nc", "CommandLine|contains": "-e"},
            {"Image|endswith": "/socat"},
        ],
        "condition": "selection",
    }

    assert matches(detection, "/bin/nc -e sh")
    assert matches(detection, "/bin/socat")
    assert not matches(detection, "/bin/nc -l")
    assert not matches(detection, "/bin/sh -e")


# --- whatever the rule ----------------------------------------------------------------------

words = st.text(alphabet="ab/.", min_size=1, max_size=4)
modifiers = st.sampled_from(["", "|contains", "|startswith", "|endswith", "|contains|all"])
selections = st.dictionaries(
    st.builds("{}{}".format, st.sampled_from(["Image", "CommandLine"]), modifiers),
    st.lists(words, min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)
detections = st.fixed_dictionaries({"sel_a": selections, "sel_b": selections, "no": selections})
conditions = st.sampled_from(
    [
        "sel_a",
        "1 of sel_*",
        "all of sel_*",
        "sel_a and not no",
        "sel_b or not no",
        "not (sel_a or sel_b)",
        "1 of them",
    ]
)


def _selected(selection, image, command_line):
    """Sigma's definition of a selection, spelt out with patterns of a shell."""
    for key, values in selection.items():
        field, *modifiers = key.split("|")
        text = {"Image": image, "CommandLine": command_line}[field].lower()
        form = {"contains": "*{}*", "startswith": "{}*", "endswith": "*{}"}
        pattern = form[modifiers[0]] if modifiers else "{}"
        found = [fnmatch.fnmatchcase(text, pattern.format(value.lower())) for value in values]
        if not (all(found) if "all" in modifiers else any(found)):
            return False
    return True


@given(detections, conditions, words, words)
def test_every_rule_means_what_it_says(parts, condition, image, command_line):
    (rule,) = SigmaCollection.from_dicts(
        [
            {
                "title": "t",
                "logsource": {"category": "process_creation"},
                "detection": {**parts, "condition": condition},
            }
        ]
    ).rules
    parsed = rule.detection.parsed_condition[0].parsed
    texts = (image, command_line, None, None, None, None, None)
    a, b, no = (_selected(parts[name], image, command_line) for name in ("sel_a", "sel_b", "no"))
    expected = {
        "sel_a": a,
        "1 of sel_*": a or b,
        "all of sel_*": a and b,
        "sel_a and not no": a and not no,
        "sel_b or not no": b or not no,
        "not (sel_a or sel_b)": not (a or b),
        "1 of them": a or b or no,
    }[condition]

    holds = compile_condition(parsed)(Execution(texts, texts))

    assert holds is expected
    names = image_names(parsed)
    # What is looked up by the name of the executable is not missed.
    assert not holds or names is None or image.rpartition("/")[2] in names


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+$", r"^(a|a)*$", r"(.*a){20}$", r"^(\w+\s?)*$"],
)
def test_no_argument_stalls_a_regular_expression(matches, pattern):
    # Backtracking would need longer than the test may take.
    assert not matches({"CommandLine|re": pattern}, "/" + "a" * 4000 + "!")
