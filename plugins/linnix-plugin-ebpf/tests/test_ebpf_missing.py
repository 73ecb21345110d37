"""What is missing is a state with its reason and the next step; what is not needed is given up."""

import errno
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from linnix_core import PluginUnavailable
from linnix_core.testing.waiting import eventually
from linnix_plugin_ebpf import collector as module
from linnix_plugin_ebpf import libbpf, programs, requirements
from linnix_plugin_ebpf.libbpf import BpfError, BpfObject, Libbpf, LibbpfMissing
from linnix_plugin_ebpf.programs import ObjectChanged, read_object

ALONE = Path(__file__).with_name("ebpf_alone.py")


@pytest.fixture
def alone(ebpf):
    """Run a collector in a process of its own; the lines that it prints."""

    def run(*options, within=(), **environment):
        done = subprocess.run(
            [*within, sys.executable, ALONE, *options],
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def linnix():
    """Run Linnix with this collector and no other plugin but a file of records."""

    def command(file, *more):
        handler = f"jsonl:{file}"
        named = ["--collector", "ebpf", "--handler", handler]
        return [sys.executable, "-m", "linnix_core", "run", "--no-plugins", *named, *more]

    return command


def reason(error):
    return str(error.value), error.value.hint


# --- what the machine has to offer --------------------------------------------------------


@pytest.fixture
def proc(tmp_path):
    """A /proc of a process with these capabilities."""

    def write(*numbers):
        own = tmp_path / "self"
        (own / "ns").mkdir(parents=True)
        capabilities = sum(1 << number for number in numbers)
        # The name is that of whatever this was started as.
        (own / "status").write_bytes(b"Name:\tl\xefnnix\nCapEff:\t%016x\n" % capabilities)
        return str(tmp_path)

    return write


CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ([], "CAP_BPF and CAP_PERFMON"),
        ([CAP_BPF], "CAP_PERFMON"),
        ([CAP_PERFMON], "CAP_BPF"),
        ([0, 1, 12], "CAP_BPF and CAP_PERFMON"),
    ],
)
def test_missing_capabilities_are_named(proc, tmp_path, held, missing):
    (tmp_path / "btf").touch()
    with pytest.raises(PluginUnavailable) as error:
        requirements.check(btf=str(tmp_path / "btf"), proc=proc(*held), release="6.1.0-13-amd64")
    assert reason(error) == (
        f"needs {missing}",
        "run as root, or give the service AmbientCapabilities=CAP_BPF CAP_PERFMON",
    )


@pytest.mark.parametrize("held", [[CAP_BPF, CAP_PERFMON], [CAP_SYS_ADMIN]])
@pytest.mark.parametrize("release", ["5.8", "5.15.0-91-generic", "6.18.44", "10.0-rc1"])
def test_what_is_enough_is_enough(proc, tmp_path, held, release):
    (tmp_path / "btf").touch()
    requirements.check(btf=str(tmp_path / "btf"), proc=proc(*held), release=release)


@pytest.mark.parametrize("release", ["4.19.0-25-amd64", "5.4.0-150-generic", "5.7.19", "3.10"])
def test_a_kernel_that_is_too_old_is_named(release):
    with pytest.raises(PluginUnavailable) as error:
        requirements.check(release=release)
    assert reason(error) == (
        f"Linux {release} is too old: 5.8 brought what is needed",
        "pip install linnix-plugin-bcc",
    )


def test_a_kernel_without_its_types_is_told(tmp_path):
    with pytest.raises(PluginUnavailable) as error:
        requirements.check(btf=str(tmp_path / "none"), release="6.1.0")
    assert "does not describe its types (BTF)" in str(error.value)
    assert error.value.hint == (
        "use a kernel built with CONFIG_DEBUG_INFO_BTF, or pip install linnix-plugin-bcc"
    )


def test_another_system_is_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PluginUnavailable, match="eBPF is a part of Linux"):
        requirements.check()


def test_another_byte_order_is_told(monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(PluginUnavailable, match="built for little-endian processors"):
        requirements.check()


def test_another_cgroup_namespace_is_a_limit(proc, tmp_path):
    assert requirements.limits(proc=proc()) == []
    (tmp_path / "self/ns/cgroup").touch()
    (limit,) = requirements.limits(proc=str(tmp_path))
    assert "not the host's cgroup namespace" in limit


def test_what_forbids_bpf_is_guessed(proc, tmp_path):
    assert "seccomp" in requirements.why_forbidden(proc())
    (tmp_path / "self/ns/user").touch()
    assert "user namespace" in requirements.why_forbidden(str(tmp_path))


def test_a_kernel_that_does_not_count_io_is_a_limit(tmp_path):
    none = str(tmp_path / "none")
    (limit,) = requirements.limits(proc=none, io=none)
    assert "does not count the storage I/O" in limit


def test_a_kernel_that_does_not_count_how_long_processes_wait_is_a_limit(tmp_path):
    none = str(tmp_path / "none")
    (limit,) = requirements.limits(proc=none, delay=none)
    assert "how long processes wait for a CPU" in limit


def test_what_check_accepts_can_start(ebpf, make_collector):
    assert platform.release()
    requirements.check()
    collector = make_collector()
    collector.linnix_start()
    assert collector.linnix_health().status == "ok"
    collector.linnix_stop()


# --- libbpf -------------------------------------------------------------------------------


def test_without_libbpf_it_says_what_it_tried():
    with pytest.raises(LibbpfMissing) as error:
        Libbpf(sonames=["libnope.so.9", "libnope.so.8"])
    assert "libnope.so.9" in str(error.value)
    assert "libnope.so.8" in str(error.value)


def test_a_library_that_cannot_do_it_is_too_old():
    with pytest.raises(LibbpfMissing, match=r"libc.so.6 is too old: it has no bpf_"):
        Libbpf(sonames=["libnope.so.9", "libc.so.6"])


def test_without_libbpf_the_packages_are_named(ebpf, make_collector, monkeypatch):
    monkeypatch.setattr(libbpf, "SONAMES", ("libnope.so.9",))
    monkeypatch.setattr(module, "Libbpf", lambda: Libbpf(libbpf.SONAMES))
    with pytest.raises(PluginUnavailable) as error:
        make_collector().linnix_start()
    assert str(error.value).startswith("libbpf is missing: libnope.so.9")
    assert error.value.hint == "apt install libbpf1, dnf install libbpf, or apk add libbpf"


# --- the programs -------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of what the wheel ships, in place of it."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    image = read_object()
    (folder / programs.OBJECT).write_bytes(image)
    digest = hashlib.sha256(image).hexdigest()
    (folder / f"{programs.OBJECT}.sha256").write_text(f"{digest}  {programs.OBJECT}\n")
    monkeypatch.setattr(programs.resources, "files", lambda package: tmp_path)
    return folder


def test_the_object_is_what_was_built(shipped):
    assert read_object() == (shipped / programs.OBJECT).read_bytes()


def test_one_changed_byte_is_noticed(shipped, ebpf, make_collector):
    content = bytearray((shipped / programs.OBJECT).read_bytes())
    content[len(content) // 2] ^= 1
    (shipped / programs.OBJECT).write_bytes(content)
    with pytest.raises(PluginUnavailable) as error:
        make_collector().linnix_start()
    assert reason(error) == (
        "linnix.bpf.o is not the file that was built with this version",
        "pip install --force-reinstall linnix-plugin-ebpf",
    )


@pytest.mark.parametrize("missing", [programs.OBJECT, f"{programs.OBJECT}.sha256"])
def test_a_missing_file_is_noticed(shipped, missing):
    (shipped / missing).unlink()
    with pytest.raises(ObjectChanged, match=f"the kernel programs are not there.*{missing}"):
        read_object()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_broken_hash_is_noticed(shipped, content):
    (shipped / f"{programs.OBJECT}.sha256").write_bytes(content)
    with pytest.raises(ObjectChanged):
        read_object()


def test_what_is_no_object_is_refused(ebpf):
    with pytest.raises(BpfError, match="the object cannot be read"):
        BpfObject(Libbpf(), b"\x7fELF and no more")


def test_a_program_that_must_be_there_and_is_refused_is_told(
    spoil, make_collector, monkeypatch, caplog
):
    image = spoil("tp_btf/sched_process_fork")
    monkeypatch.setattr(module, "read_object", lambda: image)
    caplog.set_level("INFO", "linnix")  # as with -v
    with pytest.raises(PluginUnavailable) as error:
        make_collector().linnix_start()
    assert str(error.value).startswith("the programs cannot be loaded: the kernel refused:")
    assert error.value.hint == "linnix -v doctor shows what the kernel said"
    # What the kernel said of it, in lines, and nothing of how libbpf went about it.
    assert any("unreachable insn" in line for line in caplog.messages)
    assert not [line for line in caplog.messages if "\n" in line or "relo #" in line]


def test_programs_that_cannot_be_attached_are_told(ebpf, make_collector, monkeypatch, caplog):
    def busy(self, program):
        raise BpfError(program, errno.EBUSY, ["libbpf: prog 'snapshot': failed to attach"])

    monkeypatch.setattr(BpfObject, "attach", busy)
    caplog.set_level("INFO", "linnix")  # as with -v
    collector = make_collector()
    with pytest.raises(PluginUnavailable) as error:
        collector.linnix_start()
    collector.linnix_stop()
    assert reason(error) == (
        "the programs cannot be attached: snapshot: Device or resource busy",
        "linnix -v doctor shows what the kernel said",
    )
    assert caplog.messages == ["libbpf: prog 'snapshot': failed to attach"]


def test_without_one_that_is_refused_the_others_run(spoil, start_collector, monkeypatch):
    image = spoil("tp_btf/cgroup_mkdir")
    monkeypatch.setattr(module, "read_object", lambda: image)
    running = start_collector()
    running.begin().catch_up()
    limits = running.collector.linnix_health().limits
    assert "the kernel refused the program cgroup_mkdir" in limits


# --- really missing, in a process of its own ----------------------------------------------


def test_hidden_types(alone):
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"')
    (said,) = alone(within=(*hide, "sh"))
    assert said["unavailable"] == (
        "the kernel does not describe its types (BTF): there is no readable /sys/kernel/btf/vmlinux"
    )


def test_types_that_are_not_what_they_should_be(alone):
    script = 'mount --bind /dev/null /sys/kernel/btf/vmlinux && exec "$@"'
    (said,) = alone(within=("unshare", "--mount", "sh", "-c", script, "sh"))
    assert said["unavailable"].startswith("the programs cannot be loaded: the kernel's types:")


@pytest.mark.parametrize(
    ("within", "reason", "hint"),
    [
        (
            ["unshare", "--pid", "--fork", "--mount-proc"],
            "the kernel reports pids of the host, and this pid namespace has others",
            "run on the host, or in a container with the host's pid namespace",
        ),
        pytest.param(
            ["unshare", "--time", "--boottime", "100000"],
            "the kernel reports times of the host's clock, and this time namespace has another",
            "run in the host's time namespace",
            marks=pytest.mark.skipif(
                not os.path.exists("/proc/self/ns/time"), reason="needs time namespaces"
            ),
        ),
        (
            ["unshare", "--user", "--map-root-user"],
            "the programs cannot be loaded: the kernel refused: Operation not permitted",
            "the capabilities of a user namespace do not count: run outside of it",
        ),
        (
            ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"],
            "processes cannot be read: [Errno 2] No such file or directory: '/proc/self/status'",
            "mount proc at /proc",
        ),
    ],
    ids=["pids", "times", "capabilities", "no proc"],
)  # fmt: skip
def test_where_what_the_kernel_tells_does_not_fit_it_does_not_start(alone, within, reason, hint):
    (said,) = alone(within=within)
    assert (said["unavailable"], said["hint"]) == (reason, hint)


@pytest.mark.parametrize(("kept", "missing"), [("bpf", "CAP_PERFMON"), ("perfmon", "CAP_BPF")])
def test_one_of_two_capabilities(alone, kept, missing):
    (said,) = alone("--before", kept)
    assert said["unavailable"] == f"needs {missing}"


def test_a_missing_library(alone, tmp_path):
    for name in libbpf.SONAMES:
        (tmp_path / name).write_text("no library")
    (said,) = alone(LD_LIBRARY_PATH=str(tmp_path))
    assert said["unavailable"].startswith("libbpf is missing: ")
    assert "apt install libbpf1" in said["hint"]


def test_in_a_run_the_reason_is_the_last_word(ebpf, linnix, tmp_path):
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"')
    done = subprocess.run(
        [*hide, "sh", *linnix(tmp_path / "records.jsonl")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr.endswith(
        "linnix: collectors.ebpf is required and unavailable: the kernel does not describe its "
        "types (BTF): there is no readable /sys/kernel/btf/vmlinux\n"
        "  use a kernel built with CONFIG_DEBUG_INFO_BTF, or pip install linnix-plugin-bcc\n"
    )


# --- privileges ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--before", "bpf perfmon"),
        ("--after", ""),
        ("--before", "bpf perfmon", "--after", ""),
    ],
    ids=["started with two capabilities", "started as root, then nobody", "both"],
)
def test_nobody_sees_everything(alone, options):
    """Events, measurements through the kernel, and an account that balances."""
    started, seen = alone(*options)
    assert started == {"started": True}
    assert seen["complete"]
    assert seen["uid"] == 65534
    assert seen["events"] == [
        ["fork", None],
        ["exec", ["/bin/true", "as", "nobody"]],
        ["exit", None],
    ]
    emitted, received, lost = seen["account"]
    assert emitted == received
    assert set(lost.values()) == {0}
    assert seen["limits"] == []


# --- a whole run --------------------------------------------------------------------------


def test_a_run_writes_what_happens_and_hides_secrets(ebpf, linnix, tmp_path):
    file = tmp_path / "records.jsonl"
    log = tmp_path / "log"
    with log.open("w") as said:
        run = subprocess.Popen(linnix(file), cwd=tmp_path, stderr=said)

        def records():
            lines = file.read_text().splitlines() if file.exists() else []
            return [json.loads(line) for line in lines if line.endswith("}")]

        def events(child):
            return [r for r in records() if r["type"] == "event" and r["pid"] == child.pid]

        try:
            eventually(records, said=log.read_text)
            command = ["true", "--user=me", "--password=hunter2", "two words"]
            child = subprocess.Popen(command)
            child.wait()
            eventually(lambda: [e for e in events(child) if e["kind"] == "exit"])
        finally:
            run.terminate()
            run.wait()
    assert run.returncode == 0, log.read_text()
    assert [event["kind"] for event in events(child)] == ["fork", "exec", "exit"]
    _, exec_, exit_ = events(child)
    assert exec_["args"] == ["true", "--user=me", "--password=[redacted]", "two words"]
    assert (exec_["source"], exit_["exit_code"]) == ("kernel", 0)
    assert "hunter2" not in file.read_text() + log.read_text()
    losses = [record for record in records() if record["type"] == "loss"]
    assert {loss["why"] for loss in losses} >= {"ring_full", "throttled"}
    assert all(loss["emitted"] == loss["received"] + loss["dropped"] for loss in losses)
