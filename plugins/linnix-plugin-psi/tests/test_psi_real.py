"""Real groups with real processes in them, in the hierarchies of this machine."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from linnix_core.testing.waiting import eventually
from linnix_plugin_psi.files import parse_pairs, parse_pressure

SPIN = "while True: pass"
MIB = 2**20


@pytest.fixture
def measure(make_collector, group):
    """Poll, and give the one sample of the group."""
    collector = make_collector(include=[group.text], max_groups=1)

    def measure():
        (sample,) = collector.linnix_poll()
        assert sample.cgroup == group.text
        return sample

    return measure


def cgroup_in_proc(pid):
    """What samples and events of processes say: that of version 2, or the longest if it is /."""
    text = Path(f"/proc/{pid}/cgroup").read_bytes().decode("utf-8", "backslashreplace")
    lines = [line.split(":", 2) for line in text.removesuffix("\n").split("\n")]
    unified = [path for number, _, path in lines if number == "0" and path != "/"]
    return unified[0] if unified else max((path for _, _, path in lines), key=len)


# --- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"plain",
        b"with blanks\tand \\ more",
        b"bytes \xff\xfe that are no text",
        b"\x1b[2J\r\xe2\x80\xae",
        b"..:..:0::",
        "größer".encode() * 20,
    ],
)
def test_a_group_is_called_as_its_processes_say(make_group, start, make_collector, name):
    group = make_group(name)
    child = start(SPIN)
    group.admit(child)
    paths = [sample.cgroup for sample in make_collector().linnix_poll()]
    assert paths.count(cgroup_in_proc(child.pid)) == 1
    assert paths.count(group.text) == 1


def test_a_group_below_another_is_found_when_it_comes_and_missed_when_it_goes(
    make_collector, group
):
    collector = make_collector(include=[f"{group.text}*"])
    assert len(collector.linnix_poll()) == 1
    below = f"{group.text}/below"
    folder = group.unified() / "below"
    folder.mkdir()
    assert [sample.cgroup for sample in collector.linnix_poll()] == [group.text, below]
    folder.rmdir()
    assert [sample.cgroup for sample in collector.linnix_poll()] == [group.text]


def test_groups_may_come_and_go_while_they_are_read(make_collector, group):
    collector = make_collector(include=[f"{group.text}*"])
    folder = group.unified()

    def churn():
        for number in range(300):
            (folder / f"g{number % 7}").mkdir()
            (folder / f"g{number % 7}").rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    while thread.is_alive():
        paths = [sample.cgroup for sample in collector.linnix_poll()]
        assert len(paths) == len(set(paths))
    thread.join()
    assert [sample.cgroup for sample in collector.linnix_poll()] == [group.text]


# --- what is measured -----------------------------------------------------------------------


def test_cpu_is_what_the_kernel_counted_between_the_polls(group, start, measure):
    child = start(SPIN)
    group.admit(child)
    outer = group.cpu_ns()
    first = measure()
    inner = group.cpu_ns()
    child.go_on()
    eventually(lambda: group.cpu_ns() > inner + 50_000_000)
    inner = group.cpu_ns() - inner
    second = measure()
    outer = group.cpu_ns() - outer
    assert first.cpu_percent is None
    used = second.cpu_percent / 100 * second.interval_ns
    assert inner - 2000 <= used <= outer + 2000  # version 2 counts in microseconds


def test_throttling_is_told_within_the_interval(group, start, measure):
    group.limit_cpu(quota_us=5_000, period_us=100_000)
    child = start(SPIN)
    group.admit(child)
    assert measure().throttled_ns is None
    assert measure().throttled_ns == 0
    child.go_on()
    folder, _ = group.folder("cpu")
    eventually(lambda: parse_pairs((folder / "cpu.stat").read_bytes())["nr_throttled"] >= 2)
    assert measure().throttled_ns > 0


def test_memory_its_limit_and_a_kill_are_told(group, start, measure):
    group.limit_memory(32 * MIB)
    child = start(f"hog = b'x' * {256 * MIB}")
    group.admit(child)
    before = measure()
    child.go_on()
    assert child.wait() == -9
    after = measure()
    assert before.memory_limit_bytes == after.memory_limit_bytes == 32 * MIB
    assert 0 <= before.memory_bytes <= 32 * MIB
    assert before.memory_events["oom_kill"] == 0
    assert after.memory_events["oom_kill"] == 1
    # How often the limit was in the way is counted under the word of either version.
    assert after.memory_events.get("max", after.memory_events.get("failcnt")) > 0


def test_a_group_without_a_limit_has_none(group, measure):
    group.folder("memory")
    sample = measure()
    assert sample.memory_bytes is not None
    assert sample.memory_limit_bytes is None


def test_pressure_is_that_of_the_group(group, start, measure):
    file = group.unified() / "cpu.pressure"
    cpu = min(os.sched_getaffinity(0))
    for _ in range(2):  # two of them want the same processor
        child = start(f"import os\nos.sched_setaffinity(0, [{cpu}])\n{SPIN}")
        group.admit(child)
        child.go_on()

    def total():
        return parse_pressure(file.read_bytes()).some_total_us

    eventually(total)
    lowest = total()
    sample = measure()
    assert 0 < lowest <= sample.psi_cpu.some_total_us <= total()
    assert sample.psi_memory is not None
    assert sample.psi_io is not None


def test_pressure_may_be_turned_off_for_one_group(group, measure):
    switch = group.unified() / "cgroup.pressure"
    assert measure().psi_cpu is not None
    if not switch.exists():
        assert tuple(map(int, os.uname().release.split(".")[:2])) < (6, 1)
        return
    switch.write_text("0")
    sample = measure()
    assert (sample.psi_cpu, sample.psi_memory, sample.psi_io) == (None, None, None)
    assert sample.cpu_percent is not None


def test_a_group_made_anew_begins_anew(group, start, measure):
    child = start(SPIN)
    group.admit(child)
    child.go_on()
    eventually(group.cpu_ns)
    measure()
    child.end()
    group.remove()
    group.make()
    assert measure().cpu_percent is None
    assert measure().cpu_percent == 0.0


# --- as whom, and from where ----------------------------------------------------------------

LOOK = """
import json, logging, os, sys
from linnix_core import Context
from linnix_plugin_psi import PsiCollector, PsiConfig

context = Context(component="collectors.psi", logger=logging.getLogger(), processes=None,
                  incidents=None, data_dir="/nonexistent")
collector = PsiCollector(PsiConfig(include=sys.argv[1:]), context)
collector.linnix_start()

def show():
    samples = [
        {name: getattr(sample, name) is not None for name in sample.__slots__ if "__" not in name}
        | {"cgroup": sample.cgroup, "stalled_us": sample.psi_cpu and sample.psi_cpu.some_total_us}
        for sample in collector.linnix_poll()
    ]
    print(json.dumps([samples, collector.linnix_health().limits]), flush=True)
"""


def look(script, *include, wrapper=()):
    """What a process of its own sees: a pair of samples and limits for each line."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", LOOK + script, *include],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_polls_go_on_when_root_has_been_given_up(group):
    drop = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
    (before, _), (_, _), (after, limits) = look(f"show(); show(); {drop}; show()", "/", group.text)
    assert [sample["cgroup"] for sample in after] == ["/", group.text]
    assert limits == []
    gained = {"interval_ns", "cpu_percent", "throttled_ns"}
    for root, nobody in zip(before, after, strict=True):
        lost = {name for name in root if root[name] and not nobody[name]}
        assert lost - gained - {"stalled_us"} == set()


def test_a_group_that_is_closed_to_others_is_counted(group):
    folder = group.unified()
    folder.chmod(0o700)
    drop = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
    ((_, before), (_, after)) = look(f"show(); {drop}; show()", group.text)
    assert before == []
    assert after == ["groups that could not be opened in the last poll: 1"]


def test_in_a_namespace_the_root_is_the_group_of_the_container(group, start, tmp_path):
    (group.unified() / "inner").mkdir()
    container = (
        f"echo $$ > {group.unified()}/cgroup.procs && "
        "exec unshare --cgroup --mount sh -c "
        '\'mount -t cgroup2 none "$0" && exec "$@"\' "$0" "$@"'
    )
    wrapper = ["sh", "-c", container, str(tmp_path)]
    ((samples, limits),) = look("show()", "/", "/inner", wrapper=wrapper)
    assert [sample["cgroup"] for sample in samples] == ["/", "/inner"]
    machine = parse_pressure(Path("/proc/pressure/cpu").read_bytes()).some_total_us
    assert samples[0]["stalled_us"] < machine
    assert "groups outside of this cgroup namespace are not seen, and / is its root" in limits
