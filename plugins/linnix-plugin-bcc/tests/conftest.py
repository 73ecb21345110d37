"""The real thing: collectors that run, and headers that are the running kernel's own.

An interpreter in a venv does not see the distribution's packages. The bindings of BCC are
Python without compiled parts, so the tests show them to it, and nothing else of the system.
"""

import struct
import threading
import time
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_bcc import BccCollector, BccConfig, bindings, collector
from linnix_plugin_bcc.host import Host

BTF = Path("/sys/kernel/btf/vmlinux")


@pytest.fixture
def bindings_folder(tmp_path_factory):
    """A folder with the distribution's bcc alone; None where it is visible anyway."""
    if PathFinder.find_spec("bcc") is not None:
        return None
    if not (bindings.SYSTEM_PACKAGES / "bcc").is_dir():
        pytest.skip("the distribution's python3-bpfcc is not installed")
    folder = tmp_path_factory.mktemp("bindings")
    (folder / "bcc").symlink_to(bindings.SYSTEM_PACKAGES / "bcc")
    return folder


@pytest.fixture
def bcc(bindings_folder, monkeypatch):
    """Make BCC usable, or skip with what is missing."""
    try:
        Host().check()
    except PluginUnavailable as missing:
        pytest.skip(f"{missing} ({missing.hint})")
    if bindings_folder is not None:
        monkeypatch.syspath_prepend(str(bindings_folder))


class Stream:
    """A running collector, and what it has told so far."""

    def __init__(self, collector):
        self.collector = collector
        self.records = []
        self.losses = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=collector.linnix_collect, args=(self, self._stop), daemon=True
        )

    def emit(self, record):
        self.emit_many([record])

    def emit_many(self, records):
        with self._changed:
            self.records += records
            self._changed.notify_all()

    def lost(self, why, count=1):
        if count:
            with self._changed:
                self.losses[why] = self.losses.get(why, 0) + count
                self._changed.notify_all()

    def begin(self):
        self._thread.start()

    def end(self):
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(60)
            assert not self._thread.is_alive()

    def events(self, *kinds, **fields):
        """Those of the kinds whose attributes have these values."""
        return [
            record
            for record in list(self.records)
            if record.type == "event"
            and record.kind in kinds
            and all(getattr(record, name) == value for name, value in fields.items())
        ]

    def wait(self, what, timeout=60):
        """What ``what`` returns once that is true."""
        with self._changed:
            assert self._changed.wait_for(what, timeout), self.records[-20:]
            return what()

    def life(self, pid):
        """The events of one process from its fork to its exit."""
        self.wait(lambda: self.events("exit", pid=pid))
        return self.events("fork", "exec", "exit", pid=pid)


@pytest.fixture
def open_stream(bcc, linnix_context):
    """Start a collector with these options; ``begin`` lets it stream."""
    streams = []

    def open_stream(**options):
        options = {"sample_interval": 3600.0, **options}
        made = BccCollector(BccConfig(**options), linnix_context("collectors.bcc"))
        made.linnix_start()
        streams.append(Stream(made))
        return streams[-1]

    yield open_stream
    for stream in streams:
        stream.end()
        stream.collector.linnix_stop(time.monotonic() + 60)


@pytest.fixture
def stream(open_stream):
    """A collector that streams."""
    stream = open_stream()
    stream.begin()
    return stream


@pytest.fixture
def matching_headers(monkeypatch, tmp_path):
    """Let the plugin believe in its headers, and make those that it reads match.

    What it reads of the kernel's structures is declared anew, as the kernel's own BTF
    describes it.
    """
    if not BTF.exists():
        pytest.skip("the running kernel does not describe its structures (BTF)")
    header = tmp_path / "tasks.h"
    header.write_text(declarations(BTF.read_bytes()))
    monkeypatch.setattr(Host, "headers_match", True)
    program = collector.Program

    def with_header(bcc, *, ring_bytes, flags):
        assert "-DLINNIX_TASKS" in flags
        return program(bcc, ring_bytes=ring_bytes, flags=["-include", str(header), *flags])

    monkeypatch.setattr(collector, "Program", with_header)


@pytest.fixture(params=["foreign headers", "matching headers"])
def any_headers(request):
    """Both kinds of headers, one after the other."""
    if request.param == "matching headers":
        request.getfixturevalue("matching_headers")


#: What the programs read, with the C types of it.
MEMBERS = {
    "sched_entity": {"sum_exec_runtime": "unsigned long long {}"},
    "signal_struct": {
        "live": "int {}",
        "flags": "unsigned int {}",
        "group_exit_code": "int {}",
        "sum_sched_runtime": "unsigned long long {}",
        "maxrss": "unsigned long {}",
    },
    "mm_struct": {"arg_start": "unsigned long {}", "arg_end": "unsigned long {}"},
    "task_struct": {
        "se": "struct sched_entity {}",
        "mm": "struct mm_struct *{}",
        "signal": "struct signal_struct *{}",
        "group_leader": "struct task_struct *{}",
        "start_boottime": "unsigned long long {}",
        "exit_code": "int {}",
    },
}


def declarations(btf):
    """C declarations of `MEMBERS` at the offsets of the kernel that the BTF describes."""
    lines = [f"#define _LINUX_{name}_H" for name in ("SCHED", "SCHED_SIGNAL", "MM_TYPES")]
    structures = read_structures(btf)
    for name, members in MEMBERS.items():
        # Each member begins at its offset, whatever lies between.
        lines.append(f"struct {name} {{ union {{")
        for member, declaration in members.items():
            offset = structures[name][member]
            gap = f"char before_{member}[{offset}]; " if offset else ""
            lines.append(
                f"struct {{ {gap}{declaration.format(member)}; }} __attribute__((packed));"
            )
        lines.append("}; };")
    return "\n".join(lines)


def read_structures(btf):
    """Byte offsets of named members by structure (kernel: Documentation/bpf/btf.rst)."""
    header_size, types_at, types_size, names_at, names_size = struct.unpack_from("<5I", btf, 4)
    types = btf[header_size + types_at : header_size + types_at + types_size]
    names = btf[header_size + names_at : header_size + names_at + names_size]

    def name(offset):
        return names[offset : names.index(b"\0", offset)].decode()

    # Bytes after the 12 of each kind: (fixed, for each of its elements).
    extra = {1: (4, 0), 3: (12, 0), 14: (4, 0), 17: (4, 0)}
    extra |= {4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 15: (0, 12), 19: (0, 12)}
    wanted, anonymous, position, number = {}, {}, 0, 0
    while position < len(types):
        number += 1
        name_at, info, _ = struct.unpack_from("<III", types, position)
        kind, count = info >> 24 & 31, info & 0xFFFF
        position += 12
        if kind in (4, 5):
            members = [struct.unpack_from("<III", types, position + 12 * i) for i in range(count)]
            if not name_at:
                anonymous[number] = members
            elif kind == 4 and name(name_at) in MEMBERS:
                wanted[name(name_at)] = members
        fixed, each = extra.get(kind, (0, 0))
        position += fixed + each * count

    def offsets(members, base=0):
        for name_at, type_number, bits in members:
            offset = base + (bits & 0xFFFFFF) // 8
            if name_at:
                yield name(name_at), offset
            else:
                yield from offsets(anonymous[type_number], offset)

    return {name: dict(offsets(members)) for name, members in wanted.items()}
