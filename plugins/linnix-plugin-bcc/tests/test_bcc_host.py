"""What is missing, in a sentence with the next step."""

import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_bcc.host import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, Host

RELEASE = "6.1.0-30-amd64"
TRACEPOINT = "events/sched/sched_process_exec/format"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host on which nothing is missing."""
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    put(tmp_path, "proc/self/status", f"Name:\tx\nCapEff:\t{1 << CAP_SYS_ADMIN:016x}\n")
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    (tmp_path / "proc/self/ns/user").symlink_to("user:[4026531837]")
    put(tmp_path, "proc/self/timens_offsets", "monotonic  0  0\nboottime  0  0\n")
    put(tmp_path, f"sys/kernel/tracing/{TRACEPOINT}", "name: sched_process_exec\n")
    put(tmp_path, "sys/kernel/tracing/events/sched/sched_process_exit/format", "field:pid_t pid;")
    put_headers(tmp_path, RELEASE)
    return Host(tmp_path, RELEASE)


def put(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def put_headers(root, release, folder=f"lib/modules/{RELEASE}/build"):
    put(root, f"{folder}/include/generated/utsrelease.h", f'#define UTS_RELEASE "{release}"\n')


def missing(host):
    with pytest.raises(PluginUnavailable) as caught:
        host.check()
    return str(caught.value), caught.value.hint


def test_where_everything_is_there_nothing_is_said(host):
    host.check()


@pytest.mark.parametrize(
    ("capabilities", "enough"),
    [
        ((), False),
        ((CAP_BPF,), False),
        ((CAP_PERFMON,), False),
        ((CAP_BPF, CAP_PERFMON), True),
        ((CAP_SYS_ADMIN,), True),
    ],
)
def test_capabilities(host, capabilities, enough):
    held = sum(1 << capability for capability in capabilities)
    put(host.root, "proc/self/status", f"CapEff:\t{held:016x}\n")
    if enough:
        host.check()
    else:
        assert missing(host) == (
            "BPF programs cannot be loaded without CAP_BPF and CAP_PERFMON",
            "run as root",
        )


def test_a_kernel_without_ring_buffers(host):
    said, hint = missing(Host(host.root, "5.7.19-generic"))
    assert said.startswith("the kernel is 5.7.19-generic")
    assert "psutil" in hint


def test_another_pid_namespace(host):
    (host.root / "proc/self/ns/pid").unlink()
    (host.root / "proc/self/ns/pid").symlink_to("pid:[4026532000]")
    said, hint = missing(host)
    assert "pid namespace" in said
    assert "host's pid namespace" in hint


def test_another_user_namespace(host):
    (host.root / "proc/self/ns/user").unlink()
    (host.root / "proc/self/ns/user").symlink_to("user:[4026532000]")
    said, hint = missing(host)
    assert "user namespace" in said
    assert hint == "run outside of it"


def test_another_time_namespace(host):
    put(host.root, "proc/self/timens_offsets", "monotonic  0  0\nboottime  -5  0\n")
    said, hint = missing(host)
    assert "time namespace" in said
    assert hint == "run in the host's time namespace"


def test_a_kernel_without_such_namespaces(host):
    (host.root / "proc/self/ns/user").unlink()
    (host.root / "proc/self/timens_offsets").unlink()
    host.check()


def test_no_proc(host):
    (host.root / "proc/self/status").unlink()
    said, hint = missing(host)
    assert said.startswith("processes cannot be read: ")
    assert hint == "mount proc at /proc"


def test_no_tracefs(host):
    (host.root / "sys/kernel/tracing" / TRACEPOINT).unlink()
    said, hint = missing(host)
    assert "tracefs is not mounted" in said
    assert hint == "mount -t tracefs nodev /sys/kernel/tracing"


def test_tracefs_within_debugfs_will_do(host):
    (host.root / "sys/kernel/debug").mkdir()
    (host.root / "sys/kernel/tracing").rename(host.root / "sys/kernel/debug/tracing")
    host.check()
    assert not host.tells_last_thread


def test_no_headers(host):
    (host.root / "lib/modules" / RELEASE).rename(host.root / "lib/modules/other")
    said, hint = missing(host)
    assert said.endswith(f"lib/modules/{RELEASE}/build")
    assert hint == f"apt install linux-headers-{RELEASE}"
    assert host.headers_release is None
    assert not host.headers_match


def test_headers_that_the_kernel_carries_are_its_own(host):
    (host.root / "lib/modules" / RELEASE).rename(host.root / "lib/modules/other")
    put(host.root, "sys/kernel/kheaders.tar.xz", "")
    host.check()
    assert host.headers_match


@pytest.mark.parametrize(
    ("release", "match"),
    [(RELEASE, True), ("6.1.0-29-amd64", False), (f"{RELEASE}-rt", False)],
)
def test_headers_match_only_by_the_whole_release(host, release, match):
    put_headers(host.root, release)
    assert host.headers_release == release
    assert host.headers_match == match


def test_headers_that_say_nothing_do_not_match(host):
    put(host.root, f"lib/modules/{RELEASE}/build/include/generated/utsrelease.h", "")
    assert host.headers_release is None
    assert not host.headers_match
    host.check()


def test_headers_where_bcc_is_told_to_look(host, monkeypatch):
    put_headers(host.root, "6.2.0", folder="opt/headers")
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(host.root / "opt/headers"))
    assert host.headers_release == "6.2.0"
    host.check()


@pytest.mark.parametrize("tells", [True, False])
def test_whether_the_last_thread_is_told(host, tells):
    put(
        host.root,
        "sys/kernel/tracing/events/sched/sched_process_exit/format",
        "\tfield:bool group_dead;\n" if tells else "\tfield:int prio;\n",
    )
    assert host.tells_last_thread == tells
