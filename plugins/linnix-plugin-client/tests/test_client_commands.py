"""Commands tell what a real agent knows, and nothing that a process wrote is obeyed."""

import os
import subprocess
import sys
import time

import pytest

from linnix_core import (
    LinnixError,
    Loss,
    Subject,
    load_bundle,
    printable,
    read_bundle,
    start_time_ns,
)

#: What the hostile process of the agent is called, and how that is shown.
HOSTILE = "\x1b[2J\n\u202e[red]evil[/red]"
SHOWN = r"\x1b[2J\x0a\u202e[red]evil[/red]"


# --- status ------------------------------------------------------------------------------


def test_status_tells_what_the_agent_sees_and_how_its_components_are(linnix, agent):
    said = linnix("status", "--url", agent.url)
    assert f"at {agent.url} on testhost, up " in said
    assert "  processes      4\n" in said
    assert "  explained by   heuristics\n" in said
    assert "\nhandlers.http         running " in said


def test_status_as_json_has_every_answer_of_the_agent(linnix, agent):
    said = linnix("status", "--url", agent.url, "--json").json()
    assert said["status"]["processes"] == 4
    assert said["loss"]["lost_total"] == 0
    assert {c["component"] for c in said["components"]} >= {"handlers.http", "collectors.feed"}


def test_an_agent_that_sees_what_it_should_has_no_problem(linnix, agent):
    said = linnix("status", "--url", agent.url, "--json", "--check").json()
    assert (said["ready"]["ready"], said["problems"]) == (True, [])


def test_status_check_fails_where_something_is_wrong_and_says_what(linnix, start_agent):
    agent = start_agent()
    said = linnix("status", "--url", agent.url, "--check", code=1)
    assert "What is wrong\n  not ready: " in said
    assert linnix("status", "--url", agent.url).startswith("linnix ")


def test_doctor_asks_a_running_agent(start_agent):
    agent = start_agent()
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "doctor", "--url", agent.url],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "What is wrong\n  not ready: " in done.stdout


def test_status_tells_what_was_lost_and_where(linnix, agent):
    loss = Loss(component="collectors.ebpf", why="ring_full", lost=7, lost_total=1200,
                window_ns=10**10, ts_ns=time.time_ns())  # fmt: skip
    agent.feed(loss)
    agent.until(lambda: agent.handled >= 8)
    said = linnix("status", "--url", agent.url, "--check", code=1)
    assert "What was lost\n  collectors.ebpf ring_full: 1,200 records\n" in said
    assert "What is wrong\n  1,200 records were lost\n" in said


# --- tree --------------------------------------------------------------------------------


def test_the_tree_draws_who_started_whom(linnix, agent):
    assert linnix("tree", "--url", agent.url).splitlines() == [
        "PID     CPU   RSS  COMMAND",
        "  1       -     -  init -x",
        " 10       -     -  └─ sh -x",
        " 11  150.0%  1.0M     ├─ worker -x",
        f" 12   50.0%  1.0G     └─ {SHOWN} --token=[redacted]",
    ]


def test_the_tree_of_one_process_has_only_those_below_it(linnix, agent):
    said = linnix("tree", "--url", agent.url, "10", "--json").json()
    assert [process["pid"] for process in said["processes"]] == [10, 11, 12]


def test_the_tree_of_nobody_is_an_error(linnix, agent):
    with pytest.raises(LinnixError, match="no process with the pid 999 "):
        linnix("tree", "--url", agent.url, "999")


def test_the_tree_of_a_past_moment_has_who_has_ended_since(linnix, start_agent, make):
    began_ns = start_time_ns(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 10 * 10**9)
    agent = start_agent(make.event(11, None, "job", "seen", start_ns=began_ns))
    agent.feed(make.event(11, None, "job", "exit", start_ns=began_ns, duration_ns=10**10))
    agent.until(lambda: not linnix("tree", "--url", agent.url, "--json").json()["processes"])
    said = linnix("tree", "--url", agent.url, "--at", "5s")
    assert said.splitlines() == ["PID  COMMAND", " 11  job -x"]
    assert said.remarks.startswith("Somebody may be missing: it was before this run")


def test_a_chain_of_ten_thousand_generations_is_drawn_in_bounded_width(linnix, start_agent, make):
    chain = [make.event(pid, pid - 1 if pid > 1 else None, "sh") for pid in range(1, 3001)]
    agent = start_agent(*chain)
    lines = linnix("tree", "--url", agent.url).splitlines()
    assert len(lines) == 3001
    assert max(map(len, lines)) < 100
    assert lines[-1].endswith(" 2999 sh -x")


# --- incidents -----------------------------------------------------------------------------


def test_incidents_lists_what_goes_on_with_the_reason(linnix, agent):
    agent.alert()
    header, line = linnix("incidents", "--url", agent.url).splitlines()
    assert header.split() == ["ID", "OPENED", "FOR", "SEVERITY", "WHAT", "ALERTS"]
    assert line.startswith(agent.incident)
    assert "goes on  high      fork_storm       1  Fork storm by sh (pid 10): " in line


def test_incidents_can_be_chosen(linnix, agent):
    agent.alert()
    agent.alert(rule="fd_count", class_=None, severity="low")
    listed = lambda *options: [  # noqa: E731
        each["severity"]
        for each in linnix("incidents", "--url", agent.url, "--json", *options).json()
    ]
    assert sorted(listed()) == ["high", "low"]
    assert listed("--severity", "low") == ["low"]
    assert listed("--closed") == []
    assert len(listed("--limit", "1")) == 1
    assert listed("--since", "2099-01-01") == []


def test_no_incidents_is_said_beside_the_output(linnix, agent):
    said = linnix("incidents", "--url", agent.url)
    assert (said, said.remarks) == ("", "No incidents.\n")
    assert linnix("incidents", "--url", agent.url, "--json").json() == []


def test_explain_tells_who_and_why_with_the_evidence(linnix, agent):
    agent.alert()
    said = linnix("explain", "--url", agent.url, agent.incident)
    assert f"Incident {agent.incident}: fork_storm, high, on testhost\n" in said
    assert "  who        sh (pid 10)\n" in said
    assert "  measured   forks 212, limit 100 forks\n" in said
    assert "Why\n  Fork storm by sh (pid 10): 212 forks, limit 100 forks" in said
    assert "  try: Look at the tree: pstree -aps 10\n" in said
    assert f" 12   50.0%  1.0G     └─ {SHOWN} --token=[redacted]\n" in said


def test_explain_writes_a_file_that_can_be_judged_elsewhere(linnix, agent, tmp_path):
    agent.alert()
    file = tmp_path / "incident.json"
    assert linnix("explain", "--url", agent.url, agent.incident, "--bundle", str(file)) == ""
    assert read_bundle(file).request.incident.id == agent.incident
    assert file.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "latest.json"
    link.symlink_to(file)
    file.write_text("older")
    linnix("explain", "--url", agent.url, agent.incident, "--bundle", str(link))
    assert link.is_symlink()
    assert read_bundle(file).request.incident.id == agent.incident


def test_explain_writes_into_a_pipe_and_leaves_it_there(linnix, agent, tmp_path):
    agent.alert()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Open for both, it takes what is written before anybody reads.
    with open(os.open(fifo, os.O_RDWR), "rb", buffering=0) as pipe:
        linnix("explain", "--url", agent.url, agent.incident, "--bundle", str(fifo))
        assert fifo.is_fifo()
        bundle = load_bundle(pipe.read(1 << 20))
    assert bundle.request.incident.id == agent.incident


def test_explain_again_waits_for_the_new_insight(linnix, agent):
    agent.alert()
    before = linnix("explain", "--url", agent.url, "--json", agent.incident).json()
    after = linnix("explain", "--url", agent.url, "--json", "--again", agent.incident).json()
    assert len(after["insights"]) == len(before["insights"]) + 1


def test_an_incident_without_a_class_is_shown_without_a_reason(linnix, agent):
    agent.alert(rule="fd_count", class_=None)
    said = linnix("explain", "--url", agent.url, agent.incident)
    assert "Not explained: its rule has no class" in said


@pytest.mark.parametrize("unknown", ["x-i1", "../status", "stats/../stats", "?", "\x1b"])
@pytest.mark.parametrize("name", ["explain", "feedback"])
def test_an_unknown_incident_is_an_error_with_a_next_step(linnix, agent, name, unknown):
    arguments = ["noise"] if name == "feedback" else []
    with pytest.raises(LinnixError, match=r"(?i)no such|not found") as caught:
        linnix(name, "--url", agent.url, unknown, *arguments)
    assert caught.value.hint == "linnix incidents lists those that are known"


def test_feedback_is_passed_on_with_who_gave_it(linnix, agent):
    agent.alert()
    said = linnix("feedback", "--url", agent.url, agent.incident, "noise", "--note", "a build",
                  "--by", "ops")  # fmt: skip
    assert said == f"Noted: {agent.incident} is noise.\n"
    assert agent.agent.wait_idle(30)
    assert "  feedback   noise\n" in linnix("explain", "--url", agent.url, agent.incident)


# --- alerts --------------------------------------------------------------------------------


def test_alerts_lists_the_latest_oldest_first(linnix, agent):
    agent.alert(message="first")
    agent.alert(message="second", severity="low")
    first, second = linnix("alerts", "--url", agent.url).splitlines()
    assert first.endswith("[HIGH]     fork_storm - first (testhost)")
    assert second.endswith("[LOW]      fork_storm - second (testhost)")


def test_alerts_can_be_chosen(linnix, agent):
    agent.alert(message="first", severity="medium")
    agent.alert(message="second", rule="other")
    agent.alert(message="third", severity="low")
    listed = lambda *options: [  # noqa: E731
        each["message"] for each in linnix("alerts", "--url", agent.url, "--json", *options).json()
    ]
    assert listed() == ["first", "second", "third"]
    assert listed("--severity", "medium") == ["first", "second"]
    assert listed("--rule", "other") == ["second"]
    assert listed("--limit", "2") == ["second", "third"]
    assert listed("--limit", "1", "--severity", "medium") == ["second"]
    assert listed("--since", "2099-01-01") == []


# --- top, once -----------------------------------------------------------------------------


def pids(said):
    return [process["pid"] for process in said.json()["processes"]]


def test_top_without_a_terminal_prints_the_table_once(linnix, agent):
    lines = linnix("top", "--url", agent.url).splitlines()
    assert lines[1] == "CPU 25.0%, memory 25.0%, load 1.00 0.50 0.25"
    assert lines[4].split() == [
        "PID",
        "PPID",
        "UID",
        "S",
        "CPU",
        "MEM",
        "RSS",
        "I/O",
        "THR",
        "AGE",
        "COMMAND",
    ]
    assert lines[5].split()[:7] == ["11", "10", "1000", "S", "150.0%", "0.0%", "1.0M"]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ((), [11, 12]),
        (("--sort", "mem"), [12, 11]),
        (("--sort", "pid"), [1, 10]),
        (("--sort", "pid", "--reverse"), [12, 11]),
        (("--sort", "name"), [12, 1]),
        (("--sort", "age"), [1, 10]),
    ],
)
def test_top_sorts(linnix, agent, options, first):
    assert pids(linnix("top", "--url", agent.url, "--json", *options))[:2] == first


def test_top_prints_as_many_as_are_asked_for(linnix, agent):
    assert pids(linnix("top", "--url", agent.url, "--json", "--limit", "1")) == [11]


# --- what processes choose -----------------------------------------------------------------


def test_whatever_a_process_wrote_stays_text_everywhere(linnix, agent):
    agent.alert(
        class_=None,
        rule=HOSTILE,
        message=HOSTILE,
        subject=Subject(comm=HOSTILE, exe=HOSTILE, cgroup=HOSTILE),
    )
    for name, *arguments in (
        ("tree",), ("top",), ("alerts",), ("incidents",), ("explain", agent.incident), ("status",),
    ):  # fmt: skip
        for json_too in ([], ["--json"]):
            said = linnix(name, "--url", agent.url, *arguments, *json_too)
            assert all(printable(line) == line for line in said.splitlines()), name
            assert name == "status" or "evil" in said


# --- the whole program ---------------------------------------------------------------------


def program(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "linnix_core", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_program_ends_with_1_and_a_next_step_where_nobody_answers(tmp_path):
    ended = program("status", LINNIX_URL=f"unix://{tmp_path}/nobody.sock")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"linnix: no agent answers at unix://{tmp_path}/nobody.sock: No such file or directory\n"
        "  start one with `linnix run`, or name another with --url or LINNIX_URL\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "--url", "ftp://x"], "no address: write http://HOST:PORT or unix:///PATH"),
        (["status", "--url", "http://u:p@x"], "no password in the address"),
        (["tree", "--at", "soon"], "is no time"),
        (["stream", "--type", "nothing"], "'nothing' is not one of"),
        (["feedback", "x", "great"], "'great' is not one of"),
        (["reason", "--here", "--alerts"], "need an agent"),
        (["reason", "--json", "--stream"], "--stream does not go with it"),
        (["reason", "--endpoint", "nowhere"], "is no address"),
    ],
)
def test_a_wrong_option_ends_with_2(linnix, arguments, said):
    assert said in linnix(*arguments, code=2).remarks


def test_whoever_stops_reading_is_no_error_that_needs_words(agent):
    ended = subprocess.run(
        f"{sys.executable} -m linnix_core tree --url {agent.url} --json | head -1",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("{\n", "")
