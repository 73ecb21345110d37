"""What people are told: one alert for a rule and an executable, and not a thousand."""

import itertools
import os
import pwd
import subprocess
import sys
import threading

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import Batch, Evidence, ProcessEvent, ProcessTable, Subject, hookimpl
from linnix_plugin_psutil import PsutilCollector
from linnix_plugin_sigma import SigmaConfig, SigmaHandler
from linnix_plugin_sigma.cooldown import MAX_SUBJECTS, Cooldowns
from linnix_plugin_sigma.parents import MAX_IMAGES, Parents

ID = "00000000-0000-4000-8000-000000000001"
S = 10**9


def test_an_alert_says_who_ran_what_and_which_rule(alerts, sigma, machine):
    rule = sigma(
        title="Netcat Listener",
        id=ID,
        level="high",
        author="Ada",
        tags=["attack.execution", "attack.t1059"],
    )
    event = machine.run("/usr/bin/nc -l 4444", cgroup="/app", labels={"container": "c1"})

    (alert,) = alerts(rule, event)

    assert alert.rule == "sigma: Netcat Listener"
    assert alert.class_ is None
    assert alert.severity == "high"
    assert alert.message == (
        f"Netcat Listener: /usr/bin/nc (pid {event.pid}) ran as: /usr/bin/nc -l 4444"
    )
    assert alert.subject == Subject(event.key, "/usr/bin/nc", "nc", "/app")
    assert alert.evidence == (Evidence("executions", 1, "executions"),)
    assert alert.labels == {
        "container": "c1",
        "sigma.id": ID,
        "sigma.author": "Ada",
        "sigma.tags": "attack.execution, attack.t1059",
    }
    assert (alert.ts_ns, alert.boot_id) == (event.ts_ns, "boot")


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ({"level": "informational"}, "info"),
        ({"level": "low"}, "low"),
        ({"level": "medium"}, "medium"),
        ({"level": "high"}, "high"),
        ({"level": "critical"}, "critical"),
        ({}, "medium"),
    ],
)
def test_the_level_of_a_rule_is_the_severity_of_its_alerts(alerts, sigma, machine, level, severity):
    assert alerts(sigma(**level), machine.run("/bin/nc"))[0].severity == severity


def test_rules_below_the_least_level_do_not_run(alerts, sigma, machine):
    texts = [sigma(title=level, level=level) for level in ("low", "medium", "high")]

    raised = alerts(texts, machine.run("/bin/nc"), min_level="medium")

    assert [alert.severity for alert in raised] == ["medium", "high"]


def test_a_rule_is_ignored_by_its_id_or_title(alerts, sigma, machine, caplog):
    texts = [sigma(title="One", id=ID), sigma(title="Two"), sigma(title="Three")]

    (alert,) = alerts(texts, machine.run("/bin/nc"), ignore=(ID, "Two", "Four"))

    assert alert.rule == "sigma: Three"
    assert [r.getMessage() for r in caplog.records] == ["ignore: there is no rule Four"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"path": ""}, "path must name"),
        ({"path": "a\0b"}, "path must name"),
        ({"path": "x", "cooldown": 0.0}, "cooldown must be"),
        ({"path": "x", "cooldown": 1e9}, "cooldown must be"),
    ],
)
def test_a_key_that_makes_no_sense_is_named(keys, problem):
    with pytest.raises(ValueError, match=problem):
        SigmaConfig(**keys)


# --- hostile processes ----------------------------------------------------------------------


def test_whatever_a_process_is_called_the_message_is_one_plain_line(alerts, sigma, machine):
    evil = "\x1b]0;owned\x07\n\u202e{} %s"
    event = machine.event("exec", exe=f"/tmp/{evil}/nc", args=(evil, "x" * 4000), comm=evil)

    (alert,) = alerts(sigma(), event)

    assert alert.message.isprintable()
    assert len(alert.message) < 1000


def test_whatever_a_rule_is_called_the_message_is_one_plain_line(alerts, sigma, machine):
    rule = sigma(title="a\x1b[2J\nb", author="c\x07", level="low")

    (alert,) = alerts(rule, machine.run("/bin/nc"))

    assert alert.message.isprintable()
    assert alert.rule.isprintable()
    assert alert.labels["sigma.author"].isprintable()


def test_tags_are_bounded(alerts, sigma, machine):
    rule = sigma(tags=[f"attack.{'x' * 500}{number}" for number in range(500)])

    assert len(alerts(rule, machine.run("/bin/nc"))[0].labels["sigma.tags"]) <= 16 * 66


# --- storms ---------------------------------------------------------------------------------


def test_a_storm_of_one_executable_is_one_alert_in_a_cooldown(start, sigma, machine):
    handler = start(sigma(), cooldown=60.0)

    alerts = handler.linnix_handle(Batch([machine.run("/bin/nc") for _ in range(150)]))

    assert [alert.evidence[0].value for alert in alerts] == [1, 60, 60]
    assert {m.name: m.value for m in handler.linnix_metrics()}["sigma_matches"] == 150


def test_another_executable_and_another_rule_have_cooldowns_of_their_own(alerts, sigma, machine):
    texts = [sigma(title="One"), sigma({"Image|startswith": "/tmp/"}, title="Two")]
    events = [machine.run(path) for path in ("/bin/nc", "/tmp/nc", "/bin/nc", "/tmp/nc")]

    raised = alerts(texts, *events)

    assert [(alert.rule, alert.subject.exe) for alert in raised] == [
        ("sigma: One", "/bin/nc"),
        ("sigma: One", "/tmp/nc"),
        ("sigma: Two", "/tmp/nc"),
    ]


def test_ever_new_names_of_a_program_raise_a_bounded_number_of_alerts(alerts, sigma, machine):
    events = [machine.run(f"/tmp/{number}/nc") for number in range(200)]

    assert len(alerts(sigma(), *events)) == MAX_SUBJECTS


def test_after_a_cooldown_there_is_room_for_new_names(alerts, sigma, machine):
    events = [machine.run(f"/tmp/{number}/nc") for number in range(100)]

    assert len(alerts(sigma(), *events, cooldown=3.0)) == 100


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), max_size=100),
    st.integers(1, 30),
)
def test_within_a_cooldown_there_is_one_alert_and_no_match_goes_uncounted(steps, length):
    cooldowns, now = Cooldowns(length), 1000
    told: dict[str, list[tuple[int, int]]] = {}
    silenced = dict.fromkeys("abc", 0)
    for step, exe in steps:
        now += step
        if count := cooldowns.admit("rule", exe, now):
            told.setdefault(exe, []).append((now, count))
            assert count == silenced[exe] + 1
            silenced[exe] = 0
        else:
            silenced[exe] += 1
    for times in told.values():
        assert all(b - a >= length for (a, _), (b, _) in itertools.pairwise(times))


def test_a_clock_that_is_set_back_silences_nothing_for_longer(alerts, sigma, machine):
    first, second = machine.run("/bin/nc"), machine.run("/bin/nc")
    second.ts_ns = first.ts_ns - 3600 * S

    assert len(alerts(sigma(), first, second, cooldown=60.0)) == 2


# --- parents ----------------------------------------------------------------------------------


def test_a_parent_that_was_not_noticed_is_asked_of_the_process_table(
    start, sigma, machine, linnix_context
):
    table = ProcessTable()
    shell = machine.run("/bin/bash -i")
    table.update([shell])
    context = linnix_context("handlers.sigma", processes=table.view)
    handler = start(sigma({"ParentImage|endswith": "/bash"}), context=context)

    assert handler.linnix_handle(Batch([machine.run("/bin/nc", parent=shell)]))


def test_memory_is_bounded_under_endless_new_processes(linnix_context):
    parents = Parents(linnix_context().processes)
    event = ProcessEvent("fork", pid=1, start_ns=0, args=())

    for number in range(MAX_IMAGES + 1000):
        parents.follow(attrs.evolve(event, start_ns=number))

    assert len(parents) == MAX_IMAGES


def test_what_has_ended_is_forgotten(linnix_context):
    parents = Parents(linnix_context().processes)
    event = ProcessEvent("fork", pid=1, start_ns=0, args=())

    parents.follow(event)
    parents.follow(attrs.evolve(event, kind="exit"))

    assert len(parents) == 0


# --- in a run ---------------------------------------------------------------------------------


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.alerts = []
        self.incidents = []
        self.any = threading.Event()

    @hookimpl
    def linnix_alert(self, alert):
        self.alerts.append(alert)

    @hookimpl
    def linnix_incident(self, incident):
        self.incidents.append(incident)
        self.any.set()


def test_a_match_becomes_an_incident_without_a_class(
    linnix_runtime, rules, sigma, machine, linnix_records
):
    told = Told()
    secret = machine.run("/bin/nc --password hunter2")

    agent = linnix_runtime(
        handlers={"sigma": SigmaHandler, "told": told},
        options={"handlers.sigma": {"path": str(rules(sigma(title="Netcat", level="high")))}},
        records=[*linnix_records(200), secret],
    )
    assert agent.wait_idle(30)

    assert told.any.wait(30)
    (incident,) = told.incidents
    assert (incident.class_, incident.severity) == (None, "high")
    assert incident.rules == ("sigma: Netcat",)
    assert "Netcat: /bin/nc" in incident.summary
    assert "hunter2" not in str(told.alerts)


def test_a_real_process_is_recognised(linnix_runtime, rules, sigma):
    told = Told()
    detection = {
        "Image|contains": "python",
        "CommandLine|endswith": " sigma-was-here",
        "ParentImage|contains": "python",
        "User": pwd.getpwuid(os.getuid()).pw_name,
        "LogonId": os.getuid(),
        "CurrentDirectory": "/",
    }
    linnix_runtime(
        collectors={"psutil": PsutilCollector},
        handlers={"sigma": SigmaHandler, "told": told},
        options={
            "handlers.sigma": {"path": str(rules(sigma(detection)))},
            "collectors.psutil": {"interval": 0.1},
        },
    )
    command = [sys.executable, "-c", "input()", "sigma-was-here"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/") as process:
        noticed = told.any.wait(30)
        process.communicate(b"\n")

    assert noticed
    assert [alert.subject.key.pid for alert in told.alerts] == [process.pid]


def test_the_same_records_raise_the_same_alerts(start, sigma, linnix_records):
    records = linnix_records(3000)
    text = sigma({"s": {"Image|contains": "/"}, "f": {"ParentImage|contains": "x"},
                  "condition": "s and not f"})  # fmt: skip
    whole = start(text, cooldown=1.0)
    pieces = start(text, cooldown=1.0)

    expected = whole.linnix_handle(Batch(records))
    again = [
        alert
        for begin in range(0, len(records), 7)
        for alert in pieces.linnix_handle(Batch(records[begin : begin + 7]))
    ]

    assert expected
    assert again == expected
