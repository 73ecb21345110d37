"""``linnix history`` tells from the database alone, and shows no control character."""

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from hashlib import blake2b

import attrs
import click
import pytest
from click.testing import CliRunner

from linnix_core import Batch, LinnixError, Subject, SystemSample, read_bundle
from linnix_plugin_sqlite.command import history
from linnix_plugin_sqlite.moments import MOMENT, shown

#: What alerts of the class fork_storm about /bin/sh, in no cgroup, have in common.
MARK = blake2b(b"fork_storm\0/bin/sh\0", digest_size=8).hexdigest()

HOSTILE = "evil\x1b[2J\n\u202ename"


@pytest.fixture
def family(start_handler, stop_handler, make_event, make_notices, now_ns):
    """init with a shell, which started a job that has ended and one with a hostile name."""
    handler = start_handler()
    parent = {"ppid": 1, "parent_start_ns": 0}
    child = {"ppid": 2, "parent_start_ns": 10**7}
    events = [
        make_event("seen", pid=1, start_ns=0, comm="init", exe="/sbin/init", ts_ns=now_ns),
        make_event("seen", pid=2, exe="/bin/sh", args=("sh", "-c"), ts_ns=now_ns, **parent),
        make_event(pid=3, start_ns=2 * 10**7, ts_ns=now_ns + 10**9, **child),
        make_event("exec", pid=3, start_ns=2 * 10**7, exe="/bin/true", args=("true",),
                   ts_ns=now_ns + 10**9, **child),
        make_event(pid=4, start_ns=3 * 10**7, ts_ns=now_ns + 10**9, **child),
        make_event("exec", pid=4, start_ns=3 * 10**7, comm="evil", exe=HOSTILE, args=(HOSTILE,),
                   cgroup=HOSTILE, ts_ns=now_ns + 10**9, **child),
        make_event("exit", pid=3, start_ns=2 * 10**7, exe="/bin/true", cgroup="/jobs",
                   duration_ns=10**8, cpu_ns=25 * 10**7, ts_ns=now_ns + 2 * 10**9, **child),
        make_event("exit", pid=4, start_ns=3 * 10**7, exe=HOSTILE, cgroup=HOSTILE,
                   duration_ns=10**8, ts_ns=now_ns + 3 * 10**9, **child),
    ]  # fmt: skip
    handler.linnix_handle(Batch(events))
    for record in make_notices(message=f"{HOSTILE} forks"):
        getattr(handler, f"linnix_{record.type}")(record)
    stop_handler(handler)
    return now_ns


def at(ns):
    return f"{ns // 10**9}.{ns % 10**9:09d}"


# --- the tree -----------------------------------------------------------------------------


def test_the_tree_shows_who_was_alive_and_whose_child(family, linnix_history):
    assert linnix_history("tree", "--at", at(family + 10**9)).splitlines() == [
        "      1 /sbin/init",
        "      2   sh -c",
        "      3     true",
        "      4     evil\\x1b[2J\\x0a\\u202ename",
    ]
    assert linnix_history("tree", "--at", at(family + 2 * 10**9)).count("\n") == 3
    assert linnix_history("tree", "--at", at(family)).count("\n") == 2


def test_of_one_process_it_shows_what_that_had_started(family, linnix_history):
    assert linnix_history("tree", "--at", at(family + 10**9), "2").splitlines() == [
        "      2 sh -c",
        "      3   true",
        "      4   evil\\x1b[2J\\x0a\\u202ename",
    ]


def test_a_process_that_was_not_alive_is_an_error(family, linnix_history):
    with pytest.raises(LinnixError, match="no process had the pid 77 at"):
        linnix_history("tree", "--at", at(family), "77")


def test_as_json_it_has_everything_that_is_known(family, linnix_history):
    printed = linnix_history("tree", "--at", at(family + 10**9), "4", "--json")
    assert printed.isascii()
    document = json.loads(printed)
    assert document["ts_ns"] == family + 10**9
    assert document["recording"] is True
    assert document["lost"] == 0
    (process,) = document["processes"]
    assert process["pid"] == 4
    assert process["parent"] == {"boot_id": "boot", "pid": 2, "start_ns": 10**7}
    assert process["args"] == [HOSTILE]


def test_it_says_when_nothing_was_recorded_then(family, path):
    result = CliRunner().invoke(history, ["tree", "--at", "now", "--db", str(path)])
    assert "Nothing was recorded at that moment: this is how it was at" in result.stderr


# --- the ledger ---------------------------------------------------------------------------


def test_the_ledger_sums_short_jobs_by_who_started_them(family, linnix_history):
    lines = linnix_history("ledger").splitlines()
    assert lines[1].split() == ["0.25", "1", "250.0", "/bin/sh", "/jobs"]
    assert lines[2].split() == ["0.00", "1", "0.0", "/bin/sh", "evil\\x1b[2J\\x0a\\u202ename"]
    assert lines[3] == (
        "0.25 CPU seconds in 2 processes of less than a second; of 1 the CPU time is not known"
    )


def test_the_ledger_as_json(family, linnix_history):
    first, second = json.loads(linnix_history("ledger", "--json"))
    assert first == {
        "parent_exe": "/bin/sh", "cgroup": "/jobs", "jobs": 1, "cpu_s": 0.25, "unmeasured": 0,
    }  # fmt: skip
    assert second["unmeasured"] == 1
    assert len(json.loads(linnix_history("ledger", "--json", "--limit", "1"))) == 1


def test_the_ledger_of_another_time_is_empty(family, linnix_history):
    assert json.loads(linnix_history("ledger", "--json", "--until", at(family - 60 * 10**9))) == []
    assert "No process of less than a second" in linnix_history("ledger", "--since", "now")


# --- findings -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["alerts", "incidents", "insights"])
def test_findings_are_listed_without_control_characters(family, linnix_history, what):
    printed = linnix_history("list", what)
    assert "evil\\x1b[2J\\x0a\\u202ename" in printed
    assert printed.count("\n") == 2
    (record,) = json.loads(linnix_history("list", what, "--json"))
    assert record["type"] == what.removesuffix("s")
    said = record.get("message") or record.get("summary") or record["why"]
    assert said == f"{HOSTILE} forks"


def test_findings_of_another_time_are_none(family, linnix_history):
    assert json.loads(linnix_history("list", "alerts", "--json", "--since", at(family + 1))) == []
    assert "No alerts were recorded" in linnix_history("list", "alerts", "--until", at(family - 1))


def test_of_an_incident_the_last_publication_counts(
    start_handler, stop_handler, make_notices, linnix_history, now_ns
):
    handler = start_handler()
    _, incident, _ = make_notices()
    handler.linnix_incident(incident)
    handler.linnix_incident(
        attrs.evolve(incident, change="closed", closed_ns=now_ns + 1, ts_ns=now_ns + 1)
    )
    stop_handler(handler)
    (listed,) = json.loads(linnix_history("list", "incidents", "--json"))
    assert listed["change"] == "closed"


def test_an_incident_is_open_while_somebody_watches(
    start_handler, stop_handler, make_notices, linnix_history
):
    handler = start_handler()
    handler.linnix_incident(make_notices()[1])
    assert "  open  " in linnix_history("list", "incidents")
    stop_handler(handler)
    assert "  run ended  " in linnix_history("list", "incidents")


def test_the_limit_keeps_the_last(start_handler, make_notices, linnix_history, now_ns):
    handler = start_handler()
    for number in range(5):
        handler.linnix_alert(make_notices(number, now_ns + number)[0])
    listed = json.loads(linnix_history("list", "alerts", "--json", "--limit", "2"))
    assert [alert["id"] for alert in listed] == ["a3", "a4"]


# --- an incident --------------------------------------------------------------------------


@pytest.fixture
def storm(start_handler, stop_handler, make_event, make_notices, now_ns):
    """A shell from before forks, which becomes an incident, gets worse, ends; so does the run."""
    handler = start_handler(types=("event", "system", "cgroup"))
    shell = make_event("seen", pid=2, exe="/bin/sh", ts_ns=now_ns - 300 * 10**9)
    handler.linnix_handle(Batch([shell, make_event(pid=9, ts_ns=now_ns - 299 * 10**9)]))
    handler.linnix_flush()
    child = {"ppid": 2, "parent_start_ns": shell.start_ns}
    forks = [make_event(pid=pid, start_ns=3 * 10**7, **child) for pid in range(100, 120)]
    handler.linnix_handle(Batch([SystemSample(10**9, cpus=4, ts_ns=now_ns), *forks]))
    alert, incident, insight = make_notices()
    about = Subject(shell.key, "/bin/sh", "sh")
    alert, later = (
        attrs.evolve(alert, subject=about, ts_ns=now_ns + offset, id=str(offset))
        for offset in (10**8, 60 * 10**9)
    )
    opened = attrs.evolve(
        incident, subject=about, fingerprint=MARK, opened_ns=alert.ts_ns,
        updated_ns=alert.ts_ns, ts_ns=alert.ts_ns,
    )  # fmt: skip
    closed = attrs.evolve(
        opened, change="closed", alerts=2, updated_ns=later.ts_ns, closed_ns=later.ts_ns
    )
    handler.linnix_alert(alert)
    handler.linnix_incident(opened)
    handler.linnix_insight(insight)
    handler.linnix_handle(Batch([make_event(pid=500, ts_ns=now_ns + 30 * 10**9, **child)]))
    handler.linnix_alert(later)
    handler.linnix_incident(closed)
    stop_handler(handler)
    return opened, alert, insight


def test_an_incident_of_a_run_that_is_over_is_a_file_to_judge_again(
    storm, linnix_history, tmp_path
):
    opened, alert, insight = storm
    assert linnix_history("bundle", opened.id, str(tmp_path / "bundle.json")) == ""
    bundle = read_bundle(tmp_path / "bundle.json")
    assert bundle.request.incident == opened
    assert bundle.alerts == (alert,)
    assert bundle.insight == insight
    assert bundle.request.processes[0].key == opened.subject.key
    facts = {fact.name: fact.value for fact in bundle.request.facts}
    # Who lived before, and what happened until then and not later.
    assert facts["descendants alive"] == 20
    assert facts["cores"] == 4


def test_an_incident_that_is_not_known_is_an_error(storm, linnix_history, tmp_path):
    with pytest.raises(LinnixError, match=r"holds no incident \\x1b") as caught:
        linnix_history("bundle", "\x1b", str(tmp_path / "bundle.json"))
    assert "linnix history list incidents" in caught.value.hint
    assert not (tmp_path / "bundle.json").exists()


# --- the database -------------------------------------------------------------------------


def test_check_tells_what_is_in_it_while_the_agent_writes(
    start_handler, make_batch, linnix_history
):
    handler = start_handler()
    handler.linnix_handle(make_batch(5))
    handler.linnix_flush()
    printed = linnix_history("check")
    assert "event     5 records in 1 chunks" in printed
    assert "has not ended: 5 records stored, 0 lost" in printed
    document = json.loads(linnix_history("check", "--json"))
    assert document["ok"] is True
    assert document["chunks"]["event"]["records"] == 5
    assert document["runs"][0]["ended_ns"] is None


def test_check_finds_a_part_that_cannot_be_read(
    start_handler, stop_handler, make_batch, linnix_history, path, now_ns
):
    handler = start_handler()
    handler.linnix_handle(make_batch(5))
    stop_handler(handler)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE chunks SET data = x'00ff'")
    with pytest.raises(LinnixError, match="is damaged"):
        linnix_history("check")
    with pytest.raises(LinnixError, match="part 2 of the history is damaged"):
        linnix_history("tree", "--at", at(now_ns + 10**9))


def test_without_a_database_it_says_where_it_looked(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.path.lexists", lambda path: False)
    result = CliRunner().invoke(history, ["check"])
    assert isinstance(result.exception, LinnixError)
    assert str(tmp_path / "linnix" / "handlers.sqlite" / "history.db") in str(result.exception)
    assert "--db" in result.exception.hint


def test_without_an_option_it_is_the_history_of_this_users_agents(
    linnix_context, monkeypatch, tmp_path, start_handler, stop_handler
):
    path = tmp_path / "linnix" / "handlers.sqlite" / "history.db"
    stop_handler(start_handler(path=path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = CliRunner().invoke(history, ["check", "--json"])
    assert json.loads(result.stdout)["path"] == str(path)


# --- moments ------------------------------------------------------------------------------


def moment(text):
    return MOMENT.convert(text, None, None)


def test_moments_are_read_as_people_write_them():
    local = int(datetime(2026, 11, 22, 4, 10).astimezone().timestamp()) * 10**9
    assert moment("2026-11-22T04:10:00") == local
    assert moment("2026-11-22 04:10") == local
    assert moment("2026-11-22T04:10:00.5") == local + 5 * 10**8
    assert moment("2026-11-22T04:10:00Z") == 1_795_320_600 * 10**9
    assert moment("1795320600") == 1_795_320_600 * 10**9
    assert moment("1795320600.000000001") == 1_795_320_600 * 10**9 + 1
    now = moment("now")
    assert 0 <= now - moment("10m") - 600 * 10**9 + 10**9 <= 60 * 10**9
    today = datetime.now().astimezone()
    assert shown(moment("00:00")).startswith(f"{today:%Y-%m-%d} 00:00:00") or today.hour == 0


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10 minutes", "-5m", "1969-01-01", "9" * 30])
def test_what_is_no_moment_is_refused_with_the_ways_to_write_one(text):
    with pytest.raises(click.BadParameter, match="is no time: write 2026-11-22T04:10:00"):
        moment(text)
