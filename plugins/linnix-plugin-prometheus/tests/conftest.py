"""Handlers that are told things, what they then export, and servers that scrape them."""

import contextlib
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from linnix_core import Batch, ProcessTable
from linnix_plugin_prometheus import PrometheusConfig, PrometheusHandler, families


class Exported:
    """What a handler exports, as a client of the official library reads it."""

    def __init__(self, text):
        self.text = text
        self.families = {f.name: f for f in text_string_to_metric_families(text)}

    def series(self, name):
        """Values by labels."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name
        }

    def value(self, name, **labels):
        return self.series(name)[tuple(sorted(labels.items()))]


class Told:
    """A handler without an agent, with a process table of its own."""

    def __init__(self, make_context, config, parts):
        self.table = ProcessTable()
        context = make_context("handlers.prometheus", processes=self.table.view, **parts)
        self.handler = PrometheusHandler(PrometheusConfig(**config), context)

    def batch(self, *records):
        self.table.update(records)
        self.handler.linnix_handle(Batch(records))
        return self

    def exported(self):
        return Exported(self.handler.render().decode())


@pytest.fixture
def told(linnix_context, monkeypatch):
    """Make a handler: ``told(top=3, metrics=…, components=…)``; every scrape gathers anew."""
    monkeypatch.setattr(families, "FRESH_S", 0.0)

    def make(*, metrics=(), components=(), clock=None, **config):
        parts = {"metrics": lambda: metrics, "components": lambda: components}
        if clock is not None:
            parts["clock"] = clock
        return Told(linnix_context, config, parts)

    return make


@pytest.fixture(scope="module")
def free_port():
    """Find ports of this machine that nobody listens on."""

    def find():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture(scope="module")
def started():
    """Start a program that is ended with the module's tests; what it says goes to ``log``."""
    with contextlib.ExitStack() as cleanup:

        def start(log, *command):
            output = cleanup.enter_context(log.open("wb"))
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
            cleanup.callback(_end, process)
            return process

        yield start


def _end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def program():
    """The path of a program of Debian's package ``prometheus``; skips where it is missing."""

    def find(name):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is missing: apt install prometheus")
        return Path(found)

    return find
