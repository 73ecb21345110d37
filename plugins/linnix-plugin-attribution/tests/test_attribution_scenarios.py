"""The scenario table of the original, from records to counters and alerts.

The victim is the pod prod/payment-api, and each scenario is an interval of 15 s: that is the
time within which the original counts forks and short jobs.
"""

import pytest

from linnix_core import Batch

VICTIM = "prod/payment-api"

#: Name: stall in µs, CPU percent of processes, forks, short jobs; then who is told of with
#: which reason and between which milliseconds; then exact microseconds of all.
SCENARIOS = {
    "image resizing": (
        800_000,
        {"image-resize-worker": [90], "sidecar-proxy": [1]},
        {},
        {},
        {"image-resize-worker": ("high_cpu_contention", 700, 800)},
        {"image-resize-worker": 791_208, "sidecar-proxy": 8_791},
    ),
    "fork bomb": (
        1_000_000,
        {"fork-bomb": [10], "steady-worker": [20]},
        {"fork-bomb": 400},
        {},
        {
            "fork-bomb": ("fork_storm", 600, 900),
            "steady-worker": ("high_cpu_contention", 100, 400),
        },
        {"fork-bomb": 666_666, "steady-worker": 333_333},
    ),
    "CI runner": (
        600_000,
        {},
        {},
        {"ci-runner": 120},
        {"ci-runner": ("short_job_churn", 500, 600)},
        {"ci-runner": 600_000},
    ),
    "busy victim": (
        900_000,
        {"payment-api": [70], "image-resize-worker": [30]},
        {"payment-api": 300},
        {},
        {"image-resize-worker": ("high_cpu_contention", 890, 900)},
        {"image-resize-worker": 900_000},
    ),
    "many processes": (
        1_000_000,
        {"multi-proc-worker": [20, 20, 20, 20], "single-proc-neighbour": [30]},
        {},
        {},
        {
            "multi-proc-worker": ("high_cpu_contention", 700, 730),
            "single-proc-neighbour": ("high_cpu_contention", 260, 280),
        },
        {"multi-proc-worker": 727_272, "single-proc-neighbour": 272_727},
    ),
    "even load": (
        300_000,
        {f"neighbour-{letter}": [25] for letter in "abcd"},
        {},
        {},
        {},
        {f"neighbour-{letter}": 75_000 for letter in "abcd"},
    ),
}


def path(pod):
    return f"/kubepods.slice/{pod}"


def add_pods(host, *pods, **known):
    for pod in pods:
        host.group(path(pod), {"namespace": "prod", "pod": pod}, **known)


def run(host, handler, scenario):
    """Let a scenario happen once; the alerts of it."""
    stall_us, cpu, forks, short_jobs, *_ = scenario
    for pod, percents in cpu.items():
        for percent in percents:
            host.process(path(pod), percent)
    for pod, times in forks.items():
        host.fork(path(pod), times)
    for pod, times in short_jobs.items():
        host.exit(path(pod), times)
    records = host.pass_time(15, {path("payment-api"): stall_us})
    return handler.linnix_handle(Batch([*records, *host.settle()]))


@pytest.fixture(params=SCENARIOS)
def scenario(request):
    return SCENARIOS[request.param]


@pytest.fixture
def started(host, make_handler, scenario):
    """A handler that has seen all pods of the scenario once; alerts are wanted."""

    def start(counted=False, **options):
        _, cpu, forks, short_jobs, *_ = scenario
        pods = sorted({"payment-api", *cpu, *forks, *short_jobs})
        for pod in pods:
            # Either the kernel counts the CPU of a group, or its processes are summed up.
            known = sum(cpu.get(pod, [])) if counted and pod in cpu else None
            add_pods(host, pod, cpu_percent=known)
        handler = make_handler(alerts=True, **options)
        handler.linnix_handle(Batch(host.pass_time()))
        return handler

    return start


@pytest.mark.parametrize("counted", [False, True])
def test_the_offenders_are_told_with_their_reasons(host, started, scenario, counted):
    alerts = run(host, started(counted), scenario)
    told = {}
    for alert in alerts:
        reason = alert.message.rpartition("(")[2].rstrip(")")
        assert alert.labels["victim_pod"] == "payment-api"
        told[alert.labels["offender_pod"]] = (reason, alert.evidence[0].value * 1000)
    expected = scenario[4]
    assert told.keys() == expected.keys()
    for pod, (reason, least, most) in expected.items():
        assert told[pod][0] == reason
        assert least <= told[pod][1] <= most


@pytest.mark.parametrize("counted", [False, True])
def test_all_neighbours_are_counted_exactly(host, started, scenario, induced, counted):
    handler = started(counted)
    run(host, handler, scenario)
    assert induced(handler) == {(f"prod/{pod}", VICTIM): us for pod, us in scenario[5].items()}


# --- the other numbers of the original ------------------------------------------------------


@pytest.fixture
def resizing(host, make_handler):
    """The first scenario, again and again; the alerts of all times."""

    def repeat(times, **options):
        add_pods(host, "payment-api", "image-resize-worker", "sidecar-proxy", cpu_percent=None)
        handler = make_handler(alerts=True, **options)
        handler.linnix_handle(Batch(host.pass_time()))
        scenario = SCENARIOS["image resizing"]
        return handler, [alert for _ in range(times) for alert in run(host, handler, scenario)]

    return repeat


def test_twelve_times_the_same_is_told_once_and_counted_twelve_times(resizing, induced):
    handler, alerts = resizing(12)
    assert len(alerts) == 1
    assert induced(handler)["prod/image-resize-worker", VICTIM] > 8_000_000


def test_without_a_cooldown_each_time_is_told(resizing):
    _, alerts = resizing(5, cooldown=0.0)
    assert len(alerts) == 5


def test_a_thousand_pairs_are_no_more_than_32_counters(host, make_handler, induced):
    add_pods(host, "payment-api", *(f"p{n}" for n in range(1000)), cpu_percent=1.0)
    handler = make_handler(max_pairs=32)
    handler.linnix_handle(Batch(host.pass_time()))
    host.group(path("payment-api"), {"namespace": "prod", "pod": "payment-api"})
    records = host.pass_time(15, {path("payment-api"): 10_000_000})
    handler.linnix_handle(Batch([*records, *host.settle()]))
    assert len(induced(handler)) == 32
    (evicted,) = [
        metric.value
        for metric in handler.linnix_metrics()
        if metric.name == "linnix_blame_series_evicted_total"
    ]
    assert evicted > 0


def test_pressure_of_a_pod_adds_up_over_containers_that_come_and_go(host, handler, pressure):
    """A container that crashes in a loop is another group each time."""
    pod = {"namespace": "prod", "pod": "payment-api"}
    host.group("/kubepods/p/a", pod)
    handler.linnix_handle(Batch(host.pass_time(stalls={"/kubepods/p/a": 900_000})))
    host.remove("/kubepods/p/a")
    host.group("/kubepods/p/b", pod)
    handler.linnix_handle(Batch(host.pass_time(stalls={"/kubepods/p/b": 150_000})))
    records = host.pass_time(stalls={"/kubepods/p/b": 250_000})
    handler.linnix_handle(Batch([*records, *host.settle()]))
    assert pressure(handler) == {VICTIM: 1_300_000}


def test_pressure_of_a_pod_adds_up_over_its_containers(host, handler, pressure):
    pod = {"namespace": "prod", "pod": "payment-api"}
    host.group("/kubepods/p", pod)
    host.group("/kubepods/p/a", pod)
    host.group("/kubepods/p/b", pod)
    # The pod's own group counts the time of both once more, in its way.
    waits = {"/kubepods/p": 700_000, "/kubepods/p/a": 600_000, "/kubepods/p/b": 250_000}
    handler.linnix_handle(Batch([*host.pass_time(stalls=waits), *host.settle()]))
    assert pressure(handler) == {VICTIM: 850_000}


def test_pressure_is_what_the_kernel_has_counted_since_the_group_was_made(host, handler, pressure):
    host.group("/a")
    handler.linnix_handle(Batch(host.pass_time(stalls={"/a": 1_000_000})))
    records = host.pass_time(stalls={"/a": 1_500_000})
    handler.linnix_handle(Batch([*records, *host.settle()]))
    assert pressure(handler) == {"/a": 2_500_000}
