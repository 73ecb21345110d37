"""Alerts with one fingerprint become one incident, with a beginning and an end.

Architecture, section 5. The times are those of the alerts.
"""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    SEVERITIES,
    Alert,
    Evidence,
    Incident,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    Subject,
    decode,
    encode,
)
from linnix_core.incidents import (
    MAX_CLOSED,
    MAX_OPEN,
    QUIET_NS,
    REOPEN_NS,
    UPDATE_EVERY_NS,
    IncidentBook,
    IncidentView,
    fingerprint,
)
from linnix_core.origins import MAX_ANCESTORS, MAX_DESCENDANTS

SECOND = 10**9


def book() -> IncidentBook:
    numbers = itertools.count(1)
    return IncidentBook(new_id=lambda: f"i{next(numbers)}")


def alert(rule: str = "storm", at_s: float = 0, **parts) -> Alert:
    given_ = {"severity": "medium", "message": f"{rule} fired", "class_": "fork_storm"}
    return Alert(rule, ts_ns=int(at_s * SECOND), **(given_ | parts))


def changes(published: list[Incident]) -> list[tuple[str, str]]:
    return [(incident.id, incident.change) for incident in published]


def test_the_first_alert_opens_an_incident_that_tells_what_it_says():
    subject = Subject(ProcessKey("b", 7, 0), exe="/bin/sh")
    (incident,) = book().add(
        alert(at_s=3, subject=subject, evidence=(Evidence("forks", 9, "forks"),), actions=("look",))
    )
    assert (incident.id, incident.change, incident.alerts) == ("i1", "opened", 1)
    assert (incident.class_, incident.severity) == ("fork_storm", "medium")
    assert (incident.subject, incident.summary) == (subject, "storm fired")
    assert incident.evidence == (Evidence("forks", 9, "forks"),)
    assert (incident.rules, incident.actions) == (("storm",), ("look",))
    assert incident.opened_ns == incident.updated_ns == incident.ts_ns == 3 * SECOND
    assert incident.closed_ns is None


def test_an_incident_belongs_to_the_run_that_its_book_belongs_to():
    kept = IncidentBook(new_id=lambda: "i1", host="web-01", run_id="r1", boot_id="b1")
    for incident in (*kept.add(alert()), *kept.view.open(), *kept.close_quiet(QUIET_NS)):
        assert (incident.host, incident.run_id, incident.boot_id) == ("web-01", "r1", "b1")


def test_class_executable_and_cgroup_tell_incidents_apart_and_nothing_else_does():
    one = alert(subject=Subject(ProcessKey("b", 7, 0), "/bin/sh", "sh", "/a"))
    same = alert(
        "other-rule",
        severity="high",
        message="more",
        subject=Subject(ProcessKey("b", 8, 5), "/bin/sh", "bash", "/a"),
    )
    assert fingerprint(one) == fingerprint(same)
    others = [
        alert(class_="cpu_spin", subject=one.subject),
        alert(class_=None, subject=one.subject),
        alert(subject=Subject(exe="/bin/ls", cgroup="/a")),
        alert(subject=Subject(exe="/bin/sh", cgroup="/b")),
        alert(subject=Subject(exe="/bin/sh")),
    ]
    assert len({fingerprint(other) for other in [one, *others]}) == 6


def test_without_a_class_the_rule_stands_for_it_and_without_an_executable_the_name():
    assert fingerprint(alert("a", class_=None)) != fingerprint(alert("b", class_=None))
    assert fingerprint(alert("a")) == fingerprint(alert("b"))
    assert fingerprint(alert(subject=Subject(comm="x"))) != fingerprint(
        alert(subject=Subject(comm="y"))
    )


def test_parts_of_a_fingerprint_do_not_run_into_each_other():
    one = alert(subject=Subject(exe="/a", cgroup="/b"))
    other = alert(subject=Subject(exe="/a/b", cgroup=""))
    assert fingerprint(one) != fingerprint(other)


def test_a_storm_of_alerts_is_one_message_every_ten_seconds():
    kept = book()
    published = [kept.add(alert(at_s=second / 2)) for second in range(50)]
    assert [len(each) for each in published].count(1) == 3
    assert changes(list(itertools.chain(*published))) == [
        ("i1", "opened"),
        ("i1", "updated"),
        ("i1", "updated"),
    ]
    assert published[20][0].ts_ns == UPDATE_EVERY_NS
    assert kept.view.get("i1").alerts == 50


def test_one_that_gets_worse_is_told_at_once_and_names_who_made_it_worse():
    kept = book()
    kept.add(alert(subject=Subject(ProcessKey("b", 7, 0))))
    worse = alert(
        "worse", at_s=1, severity="critical", message="now bad",
        subject=Subject(ProcessKey("b", 8, 0)),
    )  # fmt: skip
    (incident,) = kept.add(worse)
    assert (incident.change, incident.severity, incident.summary) == (
        "worse",
        "critical",
        "now bad",
    )
    assert incident.subject.key.pid == 8


def test_a_milder_alert_changes_neither_severity_nor_summary_nor_subject():
    kept = book()
    (first,) = kept.add(alert(severity="high", subject=Subject(ProcessKey("b", 7, 0))))
    (later,) = kept.add(
        alert("b", at_s=11, severity="low", message="x", subject=Subject(ProcessKey("b", 8, 0)))
    )
    assert later.change == "updated"
    assert (later.severity, later.summary, later.subject) == (
        first.severity,
        first.summary,
        first.subject,
    )


def test_the_evidence_is_the_latest_of_each_rule():
    kept = book()
    for at_s, rule, value in ((0, "a", 1), (1, "b", 2), (11, "a", 3)):
        published = kept.add(alert(rule, at_s, evidence=(Evidence("n", value, "1"),)))
    (incident,) = published
    assert incident.rules == ("a", "b")
    assert [item.value for item in incident.evidence] == [3, 2]


def test_evidence_is_bounded_however_many_rules_fire():
    kept = book()
    evidence = tuple(Evidence("n", n, "1") for n in range(32))
    for number in range(100):
        kept.add(alert(f"r{number}", evidence=evidence))
    (incident,) = kept.view.open()
    assert len(incident.rules) == 16
    assert incident.rules[-1] == "r99"
    assert len(incident.evidence) <= 64


def test_an_incident_is_over_after_five_quiet_minutes():
    kept = book()
    kept.add(alert(at_s=10))
    assert kept.next_close_ns == 10 * SECOND + QUIET_NS
    assert kept.close_quiet(10 * SECOND + QUIET_NS - 1) == []
    (incident,) = kept.close_quiet(10 * SECOND + QUIET_NS)
    assert (incident.id, incident.change) == ("i1", "closed")
    assert incident.closed_ns == incident.ts_ns == 10 * SECOND + QUIET_NS
    assert kept.view.open() == []
    assert kept.next_close_ns is None


def test_another_alert_keeps_it_open():
    kept = book()
    kept.add(alert(at_s=0))
    kept.add(alert(at_s=200))
    assert kept.close_quiet(400 * SECOND) == []
    assert kept.next_close_ns == 200 * SECOND + QUIET_NS


def test_an_alert_after_the_quiet_opens_a_new_one_and_closes_the_old():
    kept = book()
    kept.add(alert(at_s=0))
    published = kept.add(alert(at_s=1201))
    assert changes(published) == [("i1", "closed"), ("i2", "opened")]


def test_any_alert_closes_what_is_over_so_that_a_replay_tells_the_same_story():
    kept = book()
    kept.add(alert(at_s=0))
    published = kept.add(alert(at_s=301, class_="cpu_spin"))
    assert changes(published) == [("i1", "closed"), ("i2", "opened")]


def test_an_alert_from_before_moves_no_time_back():
    kept = book()
    kept.add(alert(at_s=100))
    kept.add(alert(at_s=50))
    (incident,) = kept.view.open()
    assert (incident.updated_ns, incident.alerts) == (100 * SECOND, 2)


def test_too_many_open_ones_close_the_one_that_was_quiet_longest():
    kept = book()
    for number in range(MAX_OPEN):
        kept.add(alert(at_s=number / 10, subject=Subject(exe=f"/{number}")))
    kept.add(alert(at_s=30, subject=Subject(exe="/0")))
    published = kept.add(alert(at_s=31, subject=Subject(exe="/one-more")))
    assert changes(published) == [("i2", "closed"), (f"i{MAX_OPEN + 1}", "opened")]
    assert len(kept.view.open()) == MAX_OPEN


def test_closed_ones_are_remembered_within_bounds():
    kept = book()
    for number in range(MAX_CLOSED + 5):
        kept.add(alert(at_s=number * 1201))
    assert kept.view.get("i1") is None
    assert kept.view.get("i10").change == "closed"
    assert len(kept.view.recent(10**6)) == MAX_CLOSED + 1


def test_a_hostile_message_is_shown_as_it_is():
    (incident,) = book().add(alert(message="evil\x1b[2J\nname" + "x" * 500))
    assert incident.summary.startswith(r"evil\x1b[2J\x0aname")
    assert len(incident.summary) == 200


# --- views --------------------------------------------------------------------------------


def test_the_latest_come_first_and_open_ones_in_the_order_of_their_opening():
    kept = book()
    for number, exe in enumerate(("/a", "/b", "/c")):
        kept.add(alert(at_s=number, subject=Subject(exe=exe)))
    kept.add(alert(at_s=9, subject=Subject(exe="/a")))
    assert [incident.id for incident in kept.view.open()] == ["i1", "i2", "i3"]
    assert [incident.id for incident in kept.view.recent(2)] == ["i1", "i3"]


def test_an_unknown_id_is_nobody():
    assert book().view.get("i1") is None


def test_without_a_run_a_view_is_empty():
    view = IncidentView()
    assert (view.open(), view.recent(), view.get("i1")) == ([], [], None)


def test_what_is_published_or_viewed_is_a_copy():
    kept = book()
    (published,) = kept.add(alert())
    for copy in (published, *kept.view.open(), *kept.view.recent(), kept.view.get("i1")):
        copy.severity, copy.seq, copy.change = "critical", 99, "closed"
    (incident,) = kept.view.open()
    assert (incident.severity, incident.seq, incident.change) == ("medium", 0, "opened")
    (closed,) = kept.close_quiet(QUIET_NS)
    closed.severity = "critical"
    assert kept.view.get("i1").severity == "medium"


def test_readers_see_whole_incidents_while_alerts_come():
    kept = book()
    done, mistakes = threading.Event(), []

    def read() -> None:
        try:
            while not done.is_set():
                seen = (*kept.view.open(), *kept.view.recent(5))
                # Two attributes of one update: never one of before and one of after.
                mistakes.extend(
                    incident
                    for incident in seen
                    if incident.ts_ns != incident.updated_ns and incident.change != "closed"
                )
                kept.view.get("i3")
        except Exception as error:
            mistakes.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(2000):
            kept.add(alert(at_s=number, subject=Subject(exe=f"/{number % 7}")))
    finally:
        done.set()
        for reader in readers:
            reader.join(60)
    assert mistakes == []


# --- any story ----------------------------------------------------------------------------

stories = st.lists(
    st.tuples(
        st.integers(0, 200),  # seconds since the one before
        st.sampled_from(["a", "b", "c"]),  # rules
        st.sampled_from(["fork_storm", "cpu_spin", None]),
        st.sampled_from(SEVERITIES),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(story=stories)
def test_every_incident_opens_once_closes_once_and_never_gets_milder(story):
    kept, now, published = book(), 0, []
    for pause, rule, class_, severity in story:
        now += pause
        published += kept.add(alert(rule, now, class_=class_, severity=severity))
    published += kept.close_quiet(now * SECOND + QUIET_NS)
    assert kept.view.open() == []
    lives: dict[str, list[Incident]] = {}
    for incident in published:
        lives.setdefault(incident.id, []).append(incident)
    for life in lives.values():
        told = [incident.change for incident in life]
        assert told[0] == "opened"
        assert told[-1] == "closed"
        assert set(told[1:-1]) <= {"worse", "updated", "closed"}
        assert "opened" not in told[1:]
        assert life[-1].reopened == told.count("closed") - 1
        ranks = [SEVERITIES.index(incident.severity) for incident in life]
        assert ranks == sorted(ranks)
        for before, after in itertools.pairwise(life):
            assert (after.change == "worse") == (after.severity != before.severity)
            assert after.alerts >= before.alerts
            if after.change == "updated" and before.change != "closed":
                assert after.ts_ns - before.ts_ns >= UPDATE_EVERY_NS
    assert sum(life[-1].alerts for life in lives.values()) == len(story)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_severity_can_open_one(severity):
    assert book().add(alert(severity=severity))[0].severity == severity


# --- what is around it --------------------------------------------------------------------


def line_of(*comms: str, cgroup: str | None = None) -> tuple[ProcessTable, ProcessKey]:
    """Processes, each the child of the one before; the table, and the key of the last."""
    table = ProcessTable()
    for number, comm in enumerate(comms, 1):
        table.update(
            [
                ProcessEvent(
                    "fork",
                    number,
                    number * SECOND,
                    ppid=number - 1 or None,
                    comm=comm,
                    exe=f"/usr/bin/{comm}",
                    cgroup=cgroup,
                    boot_id="b",
                )
            ]
        )
    return table, ProcessKey("b", len(comms), len(comms) * SECOND)


def opened(table: ProcessTable, key: ProcessKey) -> Incident:
    kept = IncidentBook(new_id=lambda: "i1", processes=table.view)
    (incident,) = kept.add(alert(subject=Subject(key)))
    return incident


def test_an_incident_shows_the_tree_around_its_subject():
    table, key = line_of("systemd", "cron", "sh")
    for number, rss in ((10, 5), (11, 50)):
        child = ProcessEvent("fork", number, number * SECOND, ppid=3, comm="job", boot_id="b")
        sample = ProcessSample(number, number * SECOND, SECOND, rss_bytes=rss, boot_id="b")
        table.update([child, sample])
    tree = opened(table, key).tree
    assert [(one.relation, one.comm, one.key.pid) for one in tree] == [
        ("ancestor", "systemd", 1),
        ("ancestor", "cron", 2),
        ("subject", "sh", 3),
        ("descendant", "job", 11),
        ("descendant", "job", 10),
    ]
    assert (tree[2].parent, tree[2].exe) == (tree[1].key, "/usr/bin/sh")


def test_the_tree_is_bounded_in_every_direction():
    table, key = line_of(*(f"p{number}" for number in range(200)))
    table.update(
        ProcessEvent("fork", 1000 + n, (1000 + n) * SECOND, ppid=200, comm="job", boot_id="b")
        for n in range(3000)
    )
    assert len(opened(table, key).tree) == MAX_ANCESTORS + 1 + MAX_DESCENDANTS


def test_an_incident_about_nobody_or_about_somebody_unknown_has_no_tree():
    table, _ = line_of("systemd")
    assert opened(table, ProcessKey("b", 99, 0)).tree == ()
    (incident,) = book().add(alert())
    assert (incident.tree, incident.origin) == ((), None)


@pytest.mark.parametrize(
    ("comms", "cgroup", "kind", "name"),
    [
        (("systemd", "cron", "sh", "job"), "/system.slice/cron.service", "cron", "cron"),
        (("systemd", "sshd", "bash"), "/user.slice/session-3.scope", "ssh", "sshd"),
        (("systemd", "nginx"), "/system.slice/nginx.service", "service", "nginx.service"),
        (("systemd", "bash"), "/user.slice/user-0.slice/session-3.scope", "session",
         "session-3.scope"),
        (("sh",), f"/system.slice/docker-{'a1' * 32}.scope", "container", "a1" * 32),
        (("sh",), f"/docker/{'b2' * 32}", "container", "b2" * 32),
        (("sh",), f"/kubepods/burstable/pod12-34/{'c3' * 32}", "container", "c3" * 32),
        (("sh",), f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{'d4' * 32}.scope",
         "container", "d4" * 32),
        (("sh",), "/lxc.payload.web/system.slice", "container", "web"),
    ],
)  # fmt: skip
def test_an_incident_says_where_its_subject_came_from(comms, cgroup, kind, name):
    table, key = line_of(*comms, cgroup=cgroup)
    origin = opened(table, key).origin
    assert (origin.kind, origin.name) == (kind, name)


@pytest.mark.parametrize("cgroup", [None, "/", "/build", "/docker/short", "/a.service.d/x"])
def test_where_nothing_tells_the_origin_is_not_known(cgroup):
    table, key = line_of("init", "make", cgroup=cgroup)
    assert opened(table, key).origin is None


def test_a_daemon_itself_did_not_come_from_itself():
    table, key = line_of("init", "cron")
    assert opened(table, key).origin is None


def test_the_peak_is_the_largest_that_each_rule_measured():
    kept = book()
    for value in (5, 9, 7):
        kept.add(alert(evidence=(Evidence("forks", value, "forks"), Evidence("limit", 3, "forks"))))
    kept.add(alert("other", evidence=(Evidence("rss", 1, "By"),)))
    (incident,) = kept.view.open()
    assert incident.peak == (Evidence("forks", 9, "forks"), Evidence("rss", 1, "By"))


def test_one_that_comes_back_soon_is_the_same_and_no_news():
    kept = book()
    kept.add(alert(at_s=0, severity="high"))
    (closed,) = kept.close_quiet(QUIET_NS)
    (again,) = kept.add(alert(at_s=400))
    assert (again.id, again.change, again.reopened) == (closed.id, "updated", 1)
    assert (again.alerts, again.closed_ns, again.opened_ns) == (2, None, 0)
    assert kept.view.get(closed.id) == again


def test_one_that_comes_back_has_the_evidence_of_all_its_rules():
    kept = book()
    kept.add(alert("storm", evidence=(Evidence("forks", 900, "forks"),)))
    kept.add(alert("burst", at_s=1, evidence=(Evidence("forks_per_s", 90, "forks/s"),)))
    kept.close_quiet(QUIET_NS + SECOND)
    (again,) = kept.add(alert("storm", at_s=400, evidence=(Evidence("forks", 5, "forks"),)))
    assert again.rules == ("storm", "burst")
    assert [item.value for item in again.evidence] == [5, 90]


def test_one_that_comes_back_worse_is_news():
    kept = book()
    kept.add(alert(at_s=0, severity="low"))
    kept.close_quiet(QUIET_NS)
    (again,) = kept.add(alert(at_s=400, severity="critical"))
    assert (again.change, again.reopened) == ("worse", 1)


def test_one_that_comes_back_much_later_is_another():
    kept = book()
    kept.add(alert(at_s=0))
    kept.close_quiet(QUIET_NS)
    (later,) = kept.add(alert(at_s=(QUIET_NS + REOPEN_NS) / SECOND))
    assert (later.id, later.change, later.reopened) == ("i2", "opened", 0)


def test_an_incident_with_all_of_that_is_one_line_and_comes_back_from_it():
    table, key = line_of("cron", "sh", "job", cgroup="/x")
    incident = opened(table, key)
    assert incident.origin is not None
    assert decode(encode(incident)) == incident
