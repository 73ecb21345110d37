"""Rules to write, and execs to show to them."""

import itertools

import attrs
import pytest
import yaml

from linnix_core import Batch, ProcessEvent
from linnix_plugin_sigma import SigmaConfig, SigmaHandler

S = 10**9
START_NS = 1_750_000_000 * S
LINUX = {"product": "linux", "category": "process_creation"}


def write_rule(detection=None, *, title="A rule", logsource=LINUX, **others):
    detection = {"Image|endswith": "/nc"} if detection is None else detection
    if "condition" not in detection:
        detection = {"selection": detection, "condition": "selection"}
    rule = {"title": title, "logsource": logsource, "detection": detection, **others}
    return yaml.safe_dump(rule, sort_keys=False)


class Machine:
    """Makes events of processes, a second after each other."""

    def __init__(self):
        self._pids = itertools.count(100)
        self.now_ns = START_NS

    def event(self, kind, process=None, parent=None, **parts):
        """An event of a process, which is a new one unless it is given."""
        self.now_ns += S
        if process is None:
            pid = next(self._pids)
            process = ProcessEvent("fork", pid=pid, start_ns=pid * 10_000_000)
        if parent is not None:
            parts |= {"ppid": parent.pid, "parent_start_ns": parent.start_ns}
        return attrs.evolve(
            process, kind=kind, ts_ns=self.now_ns, boot_id="boot", host="web1", **parts
        )

    def run(self, command, process=None, **parts):
        """An exec of a command line whose first word is a path."""
        args = tuple(command.split(" "))
        said = {"exe": args[0], "args": args, "comm": args[0].rpartition("/")[2][:15]}
        return self.event("exec", process, **{**said, **parts})


@pytest.fixture
def sigma():
    """The text of a rule; a detection without a condition is one selection."""
    return write_rule


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def rules(tmp_path):
    """Write files into a folder of rules; returns the folder."""
    folder = tmp_path / "rules"
    folder.mkdir()

    def write(*texts, **named):
        for number, text in enumerate(texts):
            named[f"rule{number}"] = text
        for name, text in named.items():
            (folder / f"{name}.yml").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def start(rules, linnix_context):
    """Start a handler with rules and other keys."""

    def start(*texts, context=None, **keys):
        folder = rules(*texts)
        handler = SigmaHandler(
            SigmaConfig(path=str(folder), **keys), context or linnix_context("handlers.sigma")
        )
        handler.linnix_start()
        return handler

    return start


@pytest.fixture
def alerts(start, machine):
    """The alerts that rules raise about execs or other events."""

    def alerts(texts, *events, **keys):
        return start(*([texts] if isinstance(texts, str) else texts), **keys).linnix_handle(
            Batch(events)
        )

    return alerts


@pytest.fixture
def matches(alerts, machine):
    """Whether one rule with this detection recognises an exec."""

    def matches(detection, command="/usr/bin/nc -l 4444", **parts):
        return bool(alerts(write_rule(detection), machine.run(command, **parts)))

    return matches
