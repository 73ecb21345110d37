"""The restart ledger: what jobs of less than a second cost, and who started them."""

from contextlib import closing

import pytest

from linnix_core import Batch, Feedback, Query
from linnix_plugin_sqlite import Cost, Reader
from linnix_plugin_sqlite.ledger import MAX_KINDS, OTHERS, ShortJobs
from linnix_plugin_sqlite.living import Living

MINUTE_NS = 60 * 10**9


@pytest.fixture
def job(make_event):
    """The events of one job of the process 1: its fork and its exit."""
    pids = iter(range(100, 10**9))

    def make(*, cgroup="/jobs", duration_ns=10**8, cpu_ns=10**7, **parts):
        whose = {"pid": next(pids), "ppid": 1, "parent_start_ns": 0, "cgroup": cgroup}
        return [
            make_event(**whose, **parts),
            make_event("exit", **whose, duration_ns=duration_ns, cpu_ns=cpu_ns, **parts),
        ]

    return make


@pytest.fixture
def handler(start_handler, make_event):
    handler = start_handler()
    handler.linnix_handle(Batch([make_event("seen", pid=1, start_ns=0, exe="/sbin/init")]))
    return handler


def costs(handler, *between):
    handler.linnix_flush()
    with closing(Reader(handler.path)) as reader:
        return reader.ledger(*between)


def test_jobs_are_summed_by_parent_executable_and_cgroup(handler, job):
    for _ in range(2):
        handler.linnix_handle(Batch([*job(), *job(), *job(cgroup="/b", cpu_ns=10**9)]))
        handler.linnix_flush()
    assert costs(handler) == [
        Cost("/sbin/init", "/b", 2, 2.0, 0),
        Cost("/sbin/init", "/jobs", 4, 0.04, 0),
    ]


def test_only_those_that_lived_less_than_a_second_count(handler, job):
    handler.linnix_handle(
        Batch([*job(duration_ns=10**9), *job(duration_ns=10**9 - 1), *job(duration_ns=None)])
    )
    assert [cost.jobs for cost in costs(handler)] == [1]


def test_a_cpu_time_that_is_not_known_is_not_zero(handler, job):
    handler.linnix_handle(Batch([*job(cpu_ns=None), *job()]))
    assert costs(handler) == [Cost("/sbin/init", "/jobs", 2, 0.01, 1)]


def test_a_parent_that_ended_first_is_still_known(handler, job, make_event):
    fork, exit_ = job()
    handler.linnix_handle(Batch([fork, make_event("exit", pid=1, start_ns=0), exit_]))
    assert [cost.parent_exe for cost in costs(handler)] == ["/sbin/init"]


def test_who_forked_it_counts_and_not_who_reaped_it(handler, job, make_event):
    fork, exit_ = job()
    exit_.ppid, exit_.parent_start_ns = 2, 0
    reaper = make_event("seen", pid=2, start_ns=0, exe="/usr/bin/reaper")
    handler.linnix_handle(Batch([reaper, fork, exit_]))
    assert [cost.parent_exe for cost in costs(handler)] == ["/sbin/init"]


def test_an_unknown_parent_is_the_empty_text(handler, make_event):
    handler.linnix_handle(Batch([make_event("exit", pid=50, duration_ns=1, cpu_ns=5 * 10**8)]))
    assert costs(handler) == [Cost("", "", 1, 0.5, 0)]


def test_a_range_takes_in_the_minutes_that_it_touches(handler, job, now_ns):
    first = now_ns // MINUTE_NS * MINUTE_NS
    for minute in range(4):
        handler.linnix_handle(Batch(job(ts_ns=first + minute * MINUTE_NS)))
    assert sum(cost.jobs for cost in costs(handler)) == 4
    assert sum(cost.jobs for cost in costs(handler, first + MINUTE_NS + 1)) == 3
    assert sum(cost.jobs for cost in costs(handler, None, first + MINUTE_NS - 1)) == 1


def test_endless_names_are_summed_as_others(job):
    jobs, living = ShortJobs(), Living()
    for number in range(MAX_KINDS + 50):
        jobs.add(job(cgroup=f"/{number}", ts_ns=1)[1], living)
    assert len(jobs.costs) == MAX_KINDS + 1
    assert [cost.jobs for job, cost in jobs.costs.items() if job.cgroup == OTHERS] == [50]


def test_what_waits_to_be_written_is_bounded(job):
    jobs, living = ShortJobs(), Living()
    for minute in range(20):
        for number in range(MAX_KINDS):
            jobs.add(job(cgroup=f"/{number}", ts_ns=minute * MINUTE_NS)[1], living)
    jobs.trim()
    assert len(jobs.costs) == 16 * MAX_KINDS
    assert min(job.minute for job in jobs.costs) == 4


# --- feedback -----------------------------------------------------------------------------


def test_feedback_is_kept_with_its_incident(start_handler, make_notices, now_ns):
    handler = start_handler()
    for number in (1, 2):
        handler.linnix_incident(make_notices(number)[1])
    said = [
        Feedback("testrun-i1", "useful", ts_ns=now_ns),
        Feedback("testrun-i2", "noise", "a backup, as every night", ts_ns=now_ns + 1),
    ]
    for feedback in said:
        handler.linnix_feedback(feedback)
    answer = handler.linnix_query(Query(types=("feedback",)))
    assert list(answer.records) == said
    answer = handler.linnix_query(Query(types=("incident", "feedback"), incident="testrun-i2"))
    assert {record.type for record in answer.records} == {"incident", "feedback"}
