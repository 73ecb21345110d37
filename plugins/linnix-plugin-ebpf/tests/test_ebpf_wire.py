"""Python and the programs agree on every byte, and on what it means."""

import importlib.resources
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.events import Decoder

CC = shutil.which("cc") or shutil.which("clang")
BPF = importlib.resources.files("linnix_plugin_ebpf") / "bpf"

LAYOUTS = {
    "struct event": (
        wire.EVENT,
        "time_ns start_ns parent_start_ns cgroup pid ppid uid gid comm kind flags exit_status",
    ),
    "struct exit_event": (wire.EXIT_PART, "cpu_ns max_rss_pages"),
    "struct exec_event": (wire.EXEC_PART, "exe_bytes cwd_bytes args_bytes"),
    "struct cgroup_event": (wire.CGROUP_PART, "path_bytes"),
    "struct thread": (wire.THREAD, " ".join(wire.Thread._fields)),
    "struct control": (
        wire.CONTROL,
        "reader_sleeps v1_subsystem v1_hierarchy pad cost_ns burst_ns",
    ),
    "struct counters": (struct.Struct("=4Q"), "begun submitted ring_full throttled"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What a C compiler makes of expressions with the programs' own header."""
    if CC is None:
        pytest.skip("needs a C compiler")

    def evaluate(*expressions):
        folder = tmp_path_factory.mktemp("c")
        values = "".join(f"say((long)({expression}));" for expression in expressions)
        (folder / "values.c").write_text(
            f"""
            #include "{BPF}/records.h"
            #define offset(type, field) __builtin_offsetof(type, field)
            int printf(const char *form, ...);
            static void say(long value) {{ printf("%ld\\n", value); }}
            int main(void) {{ {values} return 0; }}
            """
        )
        subprocess.run([CC, "-w", "values.c", "-o", "values"], cwd=folder, check=True)
        done = subprocess.run([folder / "values"], stdout=subprocess.PIPE, check=True)
        return [int(line) for line in done.stdout.split()]

    return evaluate


def offsets(layout):
    """Where each field of a `struct.Struct` begins."""
    place, found = 0, []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        fields = 1 if code == "s" else int(count or 1)
        size = struct.calcsize(f"={count}{code}") // fields
        found += [place + size * index for index in range(fields)]
        place += size * fields
    assert place == layout.size
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_field_is_where_the_programs_put_it(compiled, name):
    layout, fields = LAYOUTS[name]
    fields = fields.split()
    (size,) = compiled(f"sizeof({name})")
    placed = compiled(*(f"offset({name}, {field})" for field in fields))
    part_of_event = name.endswith("_event")
    begin = wire.EVENT.size if part_of_event else 0
    assert placed == [begin + offset for offset in offsets(layout)]
    if name == "struct counters":
        assert size == wire.COUNTERS_BYTES
    else:
        assert size == begin + layout.size


@pytest.mark.parametrize(
    "name",
    [
        *("FORK", "EXEC", "EXIT", "OOM", "CGROUP"),
        *("ARGS_CUT", "ARGS_UNREADABLE", "EXE_CUT", "CWD_CUT", "CGROUP_V1"),
    ],
)
def test_every_name_has_the_same_value(compiled, name):
    assert compiled(name)[0] % (1 << 64) == getattr(wire, name)


# --- what it means ------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=20).filter(lambda name: not {0, 47} & set(name))


@given(st.lists(names, max_size=8))
def test_a_path_is_put_together_from_its_parts(parts):
    walked = b"".join(name + b"\0" for name in reversed(parts))
    path = "/" + "/".join(name.decode("utf-8", "backslashreplace") for name in parts)
    assert wire.path_of(walked) == path


@given(st.binary(max_size=16).filter(lambda name: 0 not in name), st.binary(max_size=16))
def test_a_name_ends_where_it_ends(name, rest):
    raw = (name + b"\0" + rest)[:16].ljust(16, b"\0")
    assert wire.comm_of(raw) == name.decode("utf-8", "backslashreplace")


@given(st.lists(st.binary(max_size=20).filter(lambda arg: 0 not in arg), max_size=8))
def test_arguments_are_taken_apart(args):
    told = wire.split_args(b"".join(arg + b"\0" for arg in args))
    assert told == tuple(arg.decode("utf-8", "backslashreplace") for arg in args)


@pytest.mark.parametrize(
    ("bits", "letter"),
    [
        (0x0000, "R"),
        (0x0001, "S"),
        (0x0002, "D"),
        (0x0004, "T"),
        (0x0008, "t"),
        (0x0010, "X"),
        (0x0020, "Z"),
        (0x0040, "P"),
        (0x0080 | 0x0020, "Z"),  # TASK_DEAD
        (0x0102, "D"),  # TASK_KILLABLE
        (0x0402, "I"),  # TASK_IDLE
        (0x8000, "D"),  # TASK_FROZEN
        (0x1000, "D"),  # TASK_RTLOCK_WAIT
    ],
)
def test_a_state_is_the_letter_of_proc(bits, letter):
    """As task_state_index() in the kernel's include/linux/sched.h."""
    assert wire.state_of(bits) == letter


# --- what only old kernels say ------------------------------------------------------------


@pytest.fixture
def decoder(tmp_path):
    nothing = str(tmp_path / "nothing")
    return Decoder(CgroupPaths({}, mountinfo=nothing, own=nothing))


def record(kind, pid, start_ns, comm=b"victim"):
    return wire.EVENT.pack(2 * 10**9, start_ns, 0, 0, pid, 1, 0, 0, comm, kind, 0, 0)


def test_a_victim_of_which_only_the_pid_is_told_is_who_has_it(decoder):
    """Before 6.8, that is all that the OOM killer's tracepoint tells."""
    data = record(wire.FORK, 7, 1_234_567_890) + record(wire.OOM, 7, 0, b"")
    fork, oom = decoder.decode(data, [0, wire.EVENT.size], 0)
    assert (oom.kind, oom.key) == ("oom", fork.key)
    assert (oom.ppid, oom.parent_start_ns, oom.uid, oom.gid, oom.comm) == (*[None] * 4, "")
    assert oom.ts_ns == 2 * 10**9


def test_a_victim_that_nobody_knows_is_counted(decoder):
    assert decoder.decode(record(wire.OOM, 7, 0, b""), [0], 0) == []
    assert decoder.unidentified == 1


def test_who_is_alive_is_kept(decoder):
    size = wire.EVENT.size
    forks = record(wire.FORK, 7, 10**9) + record(wire.FORK, 8, 10**9)
    decoder.decode(forks, [0, size], 0)
    assert decoder.alive == {7: 10**9, 8: 10**9}
    decoder.decode(record(wire.EXIT, 7, 10**9) + bytes(wire.EXIT_PART.size), [0], 0)
    assert decoder.alive == {8: 10**9}


def test_the_exit_of_an_earlier_owner_of_a_pid_does_not_end_the_later_one(decoder):
    decoder.decode(record(wire.FORK, 7, 3 * 10**9), [0], 0)
    decoder.decode(record(wire.EXIT, 7, 10**9) + bytes(wire.EXIT_PART.size), [0], 0)
    assert decoder.alive == {7: 3 * 10**9}


# --- what is remembered of images ---------------------------------------------------------


def executed(decoder, exe, cwd, args, flags=0):
    header = wire.EVENT.pack(2 * 10**9, 10**9, 0, 0, 7, 1, 0, 0, b"x", wire.EXEC, flags, 0)
    data = header + wire.EXEC_PART.pack(len(exe), len(cwd), len(args)) + exe + cwd + args
    (event,) = decoder.decode(data, [0], 0)
    return event.exe, event.cwd, event.args, event.truncated


def test_the_same_bytes_divided_otherwise_are_another_image(decoder):
    for _ in range(2):
        assert executed(decoder, b"b\0a\0", b"", b"") == ("/a/b", "/", (), False)
        assert executed(decoder, b"b\0", b"a\0", b"") == ("/b", "/a", (), False)
        assert executed(decoder, b"b\0", b"", b"a\0") == ("/b", "/", ("a",), False)


def test_what_was_cut_is_not_taken_for_the_whole_image_of_the_same_bytes(decoder):
    image = b"b\0", b"a\0", b"x\0"
    for _ in range(2):
        assert executed(decoder, *image) == ("/b", "/a", ("x",), False)
        assert executed(decoder, *image, wire.ARGS_UNREADABLE) == ("/b", "/a", None, True)
        assert executed(decoder, *image, wire.EXE_CUT) == ("b", "/a", ("x",), True)
        assert executed(decoder, *image, wire.CWD_CUT) == ("/b", None, ("x",), True)


def test_what_is_remembered_of_names_paths_and_arguments_is_bounded(decoder, monkeypatch):
    def remembered():
        return [len(known) for known in (decoder._names, decoder._paths, decoder._args)]

    monkeypatch.setattr(wire, "REMEMBERED", 3)
    for number in range(20):
        name = b"%d\0" % number
        path = f"/{number}"
        assert executed(decoder, name, name, name) == (path, path, (str(number),), False)
        decoder.decode(record(wire.FORK, 7, 10**9, name), [0], 0)
        assert max(remembered()) <= 3
    before, long = remembered(), "x" * 5000
    raw = long.encode() + b"\0"
    assert executed(decoder, raw, raw, raw) == (f"/{long}", f"/{long}", (long,), False)
    assert remembered() == before
