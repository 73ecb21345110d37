"""The programs of ``bpf/linnix.bpf.c`` in the kernel, and the memory shared with them."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import re
import resource
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

from linnix_plugin_ebpf.libbpf import BpfError, BpfObject, Btf, Libbpf
from linnix_plugin_ebpf.ring import Ring, ring_bytes
from linnix_plugin_ebpf.wire import CONTROL, COUNTERS_BYTES, THREAD

__all__ = ["SNAPSHOT", "ObjectChanged", "Programs", "Totals", "read_object"]

OBJECT = "linnix.bpf.o"

#: What a run cannot do without, and what it can.
LIFECYCLE = ("sched_process_fork", "sched_process_exec")
EXIT = ("sched_process_exit", "sched_process_exit_until_6_15")
OOM = ("mark_victim", "mark_victim_until_6_7")
CGROUPS = ("cgroup_mkdir", "cgroup_rename")
SWITCH = "sched_switch"
SNAPSHOT = "snapshot"

_READ_BYTES = 32_768  # as much as the kernel's buffer of an iterator holds


class ObjectChanged(Exception):
    """The object is missing, or not the one that was built with this version."""


class Totals(NamedTuple):
    """The counters of all processors, added up."""

    begun: int
    submitted: int
    ring_full: int
    throttled: int


def read_object() -> bytes:
    """The compiled programs as they were built; raises `ObjectChanged`."""
    folder = resources.files("linnix_plugin_ebpf") / "bpf"
    try:
        image = (folder / OBJECT).read_bytes()
        expected = (folder / f"{OBJECT}.sha256").read_text("ascii").split()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ObjectChanged(f"the kernel programs are not there: {error}") from None
    if hashlib.sha256(image).hexdigest() != expected:
        raise ObjectChanged(f"{OBJECT} is not the file that was built with this version")
    return image


class Programs:
    """Everything loaded, nothing attached yet. Raises `BpfError` and ``OSError``.

    ``without`` lists programs that the kernel refused and that a run can do without.
    """

    def __init__(self, lib: Libbpf, image: bytes, *, ring_size: int, switches: bool = True) -> None:
        self._lib = lib
        self._cpus = lib.number("processors", lib.libbpf_num_possible_cpus())
        self._ring_bytes = ring_bytes(ring_size)
        with Btf(lib) as btf:
            chosen = _variants(btf)
            if not switches:
                chosen.remove(SWITCH)
            self.v1_subsystems = {
                name: btf.enum_value("cgroup_subsys_id", f"{name}_cgrp_id")
                for name in ("memory", "pids", "cpuacct", "cpu", "devices", "freezer")
            }
        _raise_memory_limit()
        self.without: tuple[str, ...] = ()
        while True:
            try:
                self._object = self._load(image, chosen)
                break
            except BpfError as error:
                # An unusual kernel may not take one that a run can do without.
                refused = _refused(error.log)
                if refused not in chosen or refused in (*LIFECYCLE, *EXIT):
                    raise
                chosen.remove(refused)
                self.without += (refused,)
        self._chosen = chosen
        try:
            self.ring_fd = self._object.map_fd("ring")
            self.ring = Ring(self.ring_fd, self._ring_bytes)
            self._counters = self._shared("counters", self._cpus * COUNTERS_BYTES)
            self._words = memoryview(self._counters).cast("Q")
            self._control = self._shared("control", CONTROL.size)
            self._buckets = self._object.map_fd("buckets")
        except BaseException:
            self._object.close()
            raise

    def _load(self, image: bytes, chosen: list[str]) -> BpfObject:
        loading = BpfObject(self._lib, image)
        try:
            loading.resize("ring", self._ring_bytes)
            loading.resize("counters", self._cpus)
            for name in (*LIFECYCLE, *EXIT, *OOM, *CGROUPS, SWITCH, SNAPSHOT):
                if name not in chosen:
                    loading.leave_out(name)
            loading.load()
        except BpfError:
            loading.close()
            raise
        return loading

    def _shared(self, name: str, size: int) -> mmap.mmap:
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return mmap.mmap(self._object.map_fd(name), whole)

    @property
    def snapshots(self) -> bool:
        """Whether the kernel can tell of all processes at once."""
        return SNAPSHOT in self._chosen

    def configure(
        self, *, cost_ns: int, burst_ns: int, v1_subsystem: int | None, v1_hierarchy: int
    ) -> None:
        """Tell the programs how to name groups and how much each group may say."""
        subsystem = -1 if v1_subsystem is None else v1_subsystem
        CONTROL.pack_into(self._control, 0, 0, subsystem, v1_hierarchy, 0, cost_ns, burst_ns)

    def sleeping(self, sleeps: bool) -> None:
        """Ask to be woken by the next record, or not any more."""
        self._control[:4] = sleeps.to_bytes(4, "little")

    def attach(self) -> None:
        """Let them all run. Forks first would show children of unseen parents: exits first."""
        for name in reversed(self._chosen):
            self._object.attach(name)

    def detach(self) -> None:
        """Let none run any more; what is in the ring can still be read."""
        self._object.detach()

    def totals(self) -> Totals:
        """The counters as they are now; consistent only if nothing is in between."""
        words, end = self._words, self._cpus * COUNTERS_BYTES // 8
        step = COUNTERS_BYTES // 8
        return Totals(*(sum(words[field:end:step]) for field in range(4)))

    def missed(self) -> int:
        """Events that no program saw, because one was interrupted by itself."""
        events = [name for name in self._chosen if name not in (SWITCH, SNAPSHOT)]
        return sum(map(self._object.missed, events))

    def throttled_groups(self) -> dict[int, int]:
        """Events throttled since the start for each cgroup id that is remembered."""
        groups: dict[int, int] = {}
        key, following = ctypes.c_uint64(), ctypes.c_uint64()
        bucket = (ctypes.c_uint64 * 2)()
        before: object = None
        while not self._lib.bpf_map_get_next_key(self._buckets, before, ctypes.byref(following)):
            key.value = following.value
            before = ctypes.byref(key)
            if not self._lib.bpf_map_lookup_elem(self._buckets, before, bucket) and bucket[1]:
                groups[key.value] = bucket[1]
        return groups

    def snapshot(self) -> bytearray:
        """One ``struct thread`` for every thread there is."""
        whole = bytearray()
        descriptor = self._object.iterate(SNAPSHOT)
        try:
            while part := os.read(descriptor, _READ_BYTES):
                whole += part
        finally:
            os.close(descriptor)
        del whole[len(whole) - len(whole) % THREAD.size :]
        return whole

    def close(self) -> None:
        """Detach and give everything back."""
        self.ring.close()
        self._words.release()
        self._counters.close()
        self._control.close()
        self._object.close()


def _variants(btf: Btf) -> list[str]:
    """The programs for this kernel: what a tracepoint tells has changed twice."""
    chosen = [*LIFECYCLE]
    # The flag that tells the last thread came in 6.16, the victim's task in 6.8.
    chosen.append(EXIT[0] if btf.tracepoint_arguments("sched_process_exit") > 1 else EXIT[1])
    if told := btf.tracepoint_arguments("mark_victim"):
        chosen.append(OOM[0] if told > 1 else OOM[1])
    chosen += [name for name in CGROUPS if btf.tracepoint_arguments(name)]
    return [*chosen, SWITCH, SNAPSHOT]


def _refused(log: Iterable[str]) -> str:
    """The program that libbpf complained of last, or nothing."""
    found = re.findall(r"prog '(\w+)':", "\n".join(log))
    return found[-1] if found else ""


def _raise_memory_limit() -> None:
    # Kernels before 5.11 count maps as locked memory; where it cannot be raised, loading says so.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
