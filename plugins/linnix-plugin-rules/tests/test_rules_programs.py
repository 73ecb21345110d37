"""Rules about programs: floods of them, their rate, their crashes, their violent ends."""

import pytest

from linnix_core import CgroupSample, Evidence, ProcessEvent
from linnix_plugin_rules.counting import ShortJobFlood

FLOOD = "- {name: flood, detector: short_job_flood, threshold: 20, window_seconds: 5"
CRASHES = "- {name: crashes, detector: crash_loop, threshold: 3, window_seconds: 60"
OOM = "- {name: oom, detector: oom_kill}"
SIGSEGV, SIGTERM = 11, 15


def who(alerts):
    return [alert.subject.comm for alert in alerts]


# --- short jobs -----------------------------------------------------------------------


def test_a_flood_is_that_of_who_starts_the_jobs(host, alerts_of):
    bash = host.seen("bash")
    host.jobs(bash, 20)
    (alert,) = alerts_of(FLOOD + "}", host.records)
    assert (alert.class_, alert.subject.key) == ("short_job_flood", bash.key)
    assert alert.message == (
        f"flood of short jobs: 20 of at most 1000 ms in 5 s by bash (pid {bash.pid})"
    )
    assert alert.evidence == (
        Evidence("short_jobs", 20, "short_jobs"),
        Evidence("threshold", 20, "short_jobs"),
        Evidence("window", 5, "s"),
        Evidence("offender_share", 100, "%"),
    )


@pytest.mark.parametrize(("longest", "fires"), [(1000, False), (1200, True)])
def test_max_exec_duration_ms_is_how_long_a_short_job_lasts_at_most(
    host, alerts_of, longest, fires
):
    bash = host.seen("bash")
    for _ in range(20):
        job = host.fork(bash)
        host.exec(job, "sleep")
        job_record = ProcessEvent(
            "exit", job.pid, job.start_ns, ts_ns=host.ts_ns + 1_100_000_000, boot_id="a-boot"
        )
        host.records.append(job_record)
    alerts = alerts_of(f"{FLOOD}, max_exec_duration_ms: {longest}}}", host.records)
    assert bool(alerts) is fires


def test_a_child_that_starts_no_program_is_no_job(host, alerts_of):
    host.forks(host.seen("bash"), 50)
    assert alerts_of(FLOOD + "}", host.records) == []


def test_a_job_that_was_polled_lasted_as_long_as_the_poll_says(host, alerts_of):
    bash = host.seen("bash")
    for _ in range(20):
        job = host.fork(bash)
        host.exec(job, "sleep", source="polled")
        host.exit(job, source="polled", duration_ns=3_000_000_000)
    assert alerts_of(FLOOD + "}", host.records) == []


def run(host, parent, comm, *args):
    job = host.fork(parent)
    host.exec(job, comm, *args)
    host.wait(0.03)
    host.exit(job)
    host.wait(0.03)


@pytest.mark.parametrize(
    ("arguments", "fires"),
    [
        (lambda n: [], True),
        (lambda n: [str(n)], False),
        (lambda n: [str(n % 3)], True),  # a few commands, again and again
        (lambda n: [str(n) if n % 2 else "again"], False),
    ],
)
@pytest.mark.parametrize("scope", ["exe", "host", "process", "subtree"])
def test_repeated_pct_leaves_out_work_that_gets_on(host, alerts_of, scope, arguments, fires):
    script = host.seen("script")
    for n in range(60):
        run(host, script, "tool", *arguments(n))
    text = f"{FLOOD}, scope: {scope}, repeated_pct: 75}}"
    assert bool(alerts_of(text, host.records)) is fires
    assert alerts_of(f"{FLOOD}, scope: {scope}}}", host.records)


def test_what_many_start_once_each_is_not_repeated(host, alerts_of):
    script = host.seen("script")
    for n in range(60):
        commit = host.fork(script)
        host.exec(commit, "git", "commit", str(n))
        run(host, commit, "maintenance", "run", "--auto")
        host.exit(commit)
    assert alerts_of(FLOOD + ", scope: exe, repeated_pct: 75}", host.records) == []


def test_a_flood_that_begins_among_work_that_gets_on_is_noticed(host, alerts_of):
    script, loop = host.seen("script"), host.seen("loop")
    for n in range(60):
        run(host, script, "tool", str(n))
    before = len(host.records)
    for _ in range(120):
        run(host, loop, "tool")
    (alert,) = alerts_of(FLOOD + ", scope: exe, repeated_pct: 75}", host.records)
    assert alert.subject.key == loop.key
    assert alert.ts_ns > host.records[before].ts_ns


@pytest.mark.parametrize("scope", ["exe", "host"])
def test_each_of_two_limits_is_told_when_it_is_reached_and_not_looked_at_before(
    host, alerts_of, monkeypatch, scope
):
    looks = []
    look = ShortJobFlood.look

    def counted(self, window, now_ns):
        looks.append(self.threshold)
        return look(self, window, now_ns)

    monkeypatch.setattr(ShortJobFlood, "look", counted)
    host.jobs(host.seen("bash"), 300, every=0.001)
    more = FLOOD.replace("name: flood", "name: more").replace("20", "200")
    alerts = alerts_of(f"{FLOOD}, scope: {scope}}}\n{more}, scope: {scope}}}", host.records)
    assert [(alert.rule, alert.evidence[0].value) for alert in alerts] == [
        ("flood", 20), ("more", 200)
    ]  # fmt: skip
    assert len(looks) < 10


def test_with_the_scope_exe_jobs_of_different_programs_do_not_add_up(host, alerts_of):
    bash = host.seen("bash")
    for n in range(19):
        host.jobs(bash, 1, f"tool{n % 2}")
    host.jobs(bash, 10, "tool3")
    assert alerts_of(FLOOD + ", scope: exe}", host.records) == []
    host.jobs(bash, 10, "tool3")
    (alert,) = alerts_of(FLOOD + ", scope: exe}", host.records)
    assert "of /usr/bin/tool3" in alert.message
    assert alert.subject.key == bash.key


# --- exec_rate ------------------------------------------------------------------------


def rate(regex=".+", per_min=10, lifetime=2):
    return (
        f"- {{name: rate, detector: exec_rate, regex: '{regex}', rate_per_min: {per_min}, "
        f"median_lifetime: {lifetime}}}"
    )


def test_execs_are_counted_over_a_minute(host, alerts_of):
    bash = host.seen("bash")
    host.jobs(bash, 11, every=7)
    assert alerts_of(rate(), host.records) == []
    host.jobs(bash, 4, every=1)
    (alert,) = alerts_of(rate(), host.records)
    assert (alert.class_, alert.subject.key) == ("short_job_flood", bash.key)
    assert alert.evidence[0] == Evidence("execs", 10, "execs")


@pytest.mark.parametrize(("regex", "fires"), [("^/usr/bin/curl .*--retry", True), ("wget", False)])
def test_regex_is_looked_for_in_the_command_line(host, alerts_of, regex, fires):
    bash = host.seen("bash")
    for _ in range(12):
        job = host.fork(bash)
        host.exec(job, "curl", "-s", "--retry", "3")
        host.wait(0.5)
        host.exit(job)
    assert bool(alerts_of(rate(regex), host.records)) is fires


@pytest.mark.parametrize(("argument", "fires"), [("a b c", True), ("a" * 4000 + "!", False)])
def test_no_command_line_can_stall_the_rate(host, alerts_of, argument, fires):
    bash = host.seen("bash")
    for _ in range(12):
        job = host.fork(bash)
        host.exec(job, "tool", argument)
        host.wait(0.5)
        host.exit(job)
    assert bool(alerts_of(rate(r"^/usr/bin/tool (\w+\s?)*$"), host.records)) is fires


@pytest.mark.parametrize(("lives", "fires"), [(1, True), (3, False)])
def test_median_lifetime_is_how_long_half_of_them_last_at_most(host, alerts_of, lives, fires):
    host.jobs(host.seen("bash"), 15, lives=lives, every=0.1)
    assert bool(alerts_of(rate(), host.records)) is fires


def test_who_starts_one_program_after_the_other_is_to_blame_itself(host, alerts_of):
    bash = host.seen("bash")
    host.jobs(bash, 1)
    hopper = host.fork(bash)
    for n in range(20):
        host.exec(hopper, f"image{n % 2}")
        host.wait(0.5)
    (alert,) = alerts_of(rate(), host.records)
    assert alert.subject.key == hopper.key


# --- crash_loop -----------------------------------------------------------------------


def test_a_crash_loop_names_the_executable_and_its_latest_process(host, alerts_of):
    init = host.seen("systemd", pid=1)
    host.jobs(init, 3, "service", every=5, exit_code=1)
    (alert,) = alerts_of(CRASHES + "}", host.records)
    assert (alert.class_, alert.subject.exe) == (None, "/usr/bin/service")
    assert alert.message.startswith("crash loop: 3 crashes in 60 s of /usr/bin/service by service")
    assert alert.evidence[:2] == (
        Evidence("crashes", 3, "crashes"),
        Evidence("threshold", 3, "crashes"),
    )


def test_a_crash_loop_is_reported_once_in_a_cooldown_however_many_processes_it_has(host, alerts_of):
    host.jobs(host.seen("systemd", pid=1), 12, "service", every=2, exit_code=1)
    assert len(alerts_of(CRASHES + "}", host.records)) == 1


@pytest.mark.parametrize(
    ("ended_by", "ending", "fires"),
    [
        ("failure", {"exit_code": 0}, False),
        ("failure", {"exit_code": 3}, True),
        ("failure", {"signal": SIGSEGV}, True),
        ("failure", {"signal": SIGTERM}, False),
        ("failure", {"source": "polled"}, True),
        ("signal", {"exit_code": 3}, False),
        ("signal", {"signal": SIGSEGV}, True),
        ("signal", {"source": "polled"}, False),
        ("any", {"exit_code": 0}, True),
    ],
)
def test_ended_by_says_what_a_crash_is(host, alerts_of, ended_by, ending, fires):
    host.jobs(host.seen("systemd", pid=1), 3, "service", **ending)
    assert bool(alerts_of(f"{CRASHES}, ended_by: {ended_by}}}", host.records)) is fires


def test_crashes_of_different_executables_do_not_add_up(host, alerts_of):
    init = host.seen("systemd", pid=1)
    for n in range(6):
        host.jobs(init, 1, f"service{n % 3}", exit_code=1)
    assert alerts_of(CRASHES + "}", host.records) == []


# --- oom_kill -------------------------------------------------------------------------


def counters(host, **kills):
    host.wait(5)
    for name, count in kills.items():
        path = "/" + name.replace("_", "/")
        sample = CgroupSample(path, 1, memory_events={"oom_kill": count}, ts_ns=host.ts_ns)
        host.records.append(sample)


def test_a_victim_is_reported_at_once(host, alerts_of):
    host.event("oom", host.seen("java"))
    (alert,) = alerts_of(OOM, host.records)
    assert (alert.class_, alert.subject.comm) == ("oom_risk", "java")
    assert alert.evidence[:2] == (
        Evidence("oom_kills", 1, "oom_kills"),
        Evidence("threshold", 1, "oom_kills"),
    )


def test_where_no_event_tells_it_the_counter_of_the_deepest_cgroup_does(host, alerts_of):
    counters(host, app=1, app_web=1)
    assert alerts_of(OOM, host.records) == []
    counters(host, app=2, app_web=2)
    (alert,) = alerts_of(OOM, host.records)
    assert (alert.subject.key, alert.subject.cgroup) == (None, "/app/web")


def test_a_victim_and_its_counter_are_one(host, alerts_of):
    rule = OOM.replace("}", ", threshold: 2, cooldown: 0}")
    java = host.seen("java")
    counters(host, test_slice=0)
    host.records[-1].cgroup = "/test.slice"
    host.event("oom", java)
    counters(host, test_slice=1)
    host.records[-1].cgroup = "/test.slice"
    assert alerts_of(rule, host.records) == []


@pytest.mark.parametrize(
    ("threshold", "window", "fires"), [(3, 60, True), (4, 60, False), (3, 9, False)]
)
def test_threshold_and_window_count_victims(host, alerts_of, threshold, window, fires):
    rule = OOM.replace("}", f", threshold: {threshold}, window_seconds: {window}}}")
    for _ in range(3):
        host.event("oom", host.seen("java"))
        host.wait(5)
    assert bool(alerts_of(rule, host.records)) is fires
