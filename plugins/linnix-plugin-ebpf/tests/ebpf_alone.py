"""One collector in a process of its own, which may give up privileges before and after its start.

Prints a JSON line of what came of the start, and one of what was seen until its own child and
itself, measured twice, were told.
"""

import argparse
import codecs
import ctypes
import json
import logging
import os
import subprocess
import threading
from pathlib import Path

from linnix_core import Context, PluginUnavailable, ProcessView
from linnix_plugin_ebpf import EbpfCollector, EbpfConfig
from linnix_plugin_ebpf import collector as module
from linnix_plugin_ebpf.programs import read_object

# linux/capability.h and linux/prctl.h
CAPABILITIES = {"bpf": 39, "perfmon": 38}
PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 8, 38


def become_nobody(capabilities):
    """Another user with these capabilities and no way to more."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    bits = sum(1 << CAPABILITIES[name] for name in capabilities)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
    # Effective, permitted and inheritable, the lower 32 and then the higher ones.
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(header, sets) != 0:
        raise OSError("capset(2)")


class Sink:
    """Waits for a child of this process, and for two measurements of this process."""

    def __init__(self):
        self.events = []
        self.samples = 0
        self.account = None
        self.complete = threading.Event()

    def emit_many(self, records):
        for record in records:
            if record.type == "event" and record.ppid == os.getpid():
                self.events.append([record.kind, record.args])
            if record.type == "sample" and record.pid == os.getpid():
                self.samples += 1
        told = [kind for kind, _ in self.events]
        if self.samples >= 2 and "exit" in told:
            self.complete.set()

    def balance(self, emitted, received, lost):
        self.account = emitted, received, dict(lost)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", help="capabilities to keep before the start")
    parser.add_argument("--after", help="capabilities to keep after the start")
    options = parser.parse_args()
    context = Context(
        component="collectors.ebpf",
        logger=logging.getLogger("linnix"),
        processes=ProcessView(),
        incidents=None,
        data_dir=Path("unused"),
    )
    collector = EbpfCollector(EbpfConfig(sample_interval=0.05), context)
    # Whoever it becomes may not be allowed to read where this is installed.
    image = read_object()
    module.read_object = lambda: image
    codecs.lookup("ascii")
    if options.before is not None:
        become_nobody(options.before.split())
    try:
        collector.linnix_start()
    except PluginUnavailable as error:
        print(json.dumps({"unavailable": str(error), "hint": error.hint}))
        return
    print(json.dumps({"started": True}), flush=True)
    if options.after is not None:
        become_nobody(options.after.split())
    sink, stop = Sink(), threading.Event()
    thread = threading.Thread(target=collector.linnix_collect, args=(sink, stop))
    thread.start()
    subprocess.run(["/bin/true", "as", "nobody"], check=True, cwd="/")
    complete = sink.complete.wait(30)
    stop.set()
    thread.join()
    seen = {
        "complete": complete,
        "uid": os.getuid(),
        "events": [event for event in sink.events if event[0] != "seen"],
        "account": sink.account,
        "limits": collector.linnix_health().limits,
    }
    collector.linnix_stop()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
