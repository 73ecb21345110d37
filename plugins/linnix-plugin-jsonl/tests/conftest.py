"""What the tests of this plugin share."""

import contextlib
import logging
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from linnix_core import Batch, ProcessEvent
from linnix_plugin_jsonl import JsonlConfig, JsonlHandler


class SetClock:
    """A clock that stands where it was set."""

    def __init__(self):
        self.ns = 1_795_342_530_000_000_000

    def time_ns(self):
        return self.ns

    def monotonic(self):
        return self.ns / 1e9


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def make_handler(tmp_path, linnix_context):
    """Handlers that are built but not started, with ``path`` in a folder of the test."""
    made = []

    def make(**options):
        options.setdefault("path", str(tmp_path / "linnix.jsonl"))
        parts = {"clock": options.pop("clock")} if "clock" in options else {}
        handler = JsonlHandler(JsonlConfig(**options), linnix_context("handlers.jsonl", **parts))
        made.append(handler)
        return handler

    yield make
    for handler in made:
        handler.linnix_stop(deadline=time.monotonic() + 5)


@pytest.fixture
def start_handler(make_handler):
    def start(**options):
        handler = make_handler(**options)
        handler.linnix_start()
        return handler

    return start


@pytest.fixture
def logged():
    """What the component logs, whether or not a run in this process set up the log."""

    class Listed(logging.Handler):
        def emit(self, record):
            records.append((record.levelname, record.getMessage()))

    records = []
    logger, listed = logging.getLogger("linnix.handlers.jsonl"), Listed()
    before = logger.level
    logger.addHandler(listed)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(listed)
    logger.setLevel(before)


@pytest.fixture
def make_batch():
    """Batches of events numbered on by their ``seq`` from batch to batch."""
    made = 0

    def make(count=3, *, comm_chars=10):
        nonlocal made
        first, made = made + 1, made + count
        return Batch(
            [
                ProcessEvent(
                    "fork", pid=7, start_ns=10**7, comm="x" * comm_chars, seq=seq, ts_ns=seq
                )
                for seq in range(first, made + 1)
            ]
        )

    return make


@pytest.fixture
def file_size_limit():
    """``with file_size_limit(n)``: the kernel lets no file of this process pass n bytes."""

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def cannot_run():
    """Skips with a reason, but fails where every test has to run."""

    def cannot(reason):
        if os.environ.get("CI") == "true":
            pytest.fail(f"must run here, and cannot: {reason}")
        pytest.skip(reason)

    return cannot


@pytest.fixture
def as_root(cannot_run):
    """Run one command with privileges, directly or by a sudo that asks nothing."""

    def run(*command):
        before = () if os.geteuid() == 0 else ("sudo", "-n")
        try:
            done = subprocess.run([*before, *command], capture_output=True, text=True)
        except FileNotFoundError as missing:
            cannot_run(str(missing))
        if done.returncode:
            cannot_run(f"{' '.join(command)}: {done.stderr.strip()}")

    return run


@pytest.fixture
def small_disk(tmp_path, as_root):
    """``small_disk("size=256k")``: a folder that is a tmpfs of its own."""
    folder = tmp_path / "disk"

    def mount(options):
        folder.mkdir()
        as_root("mount", "-t", "tmpfs", "-o", options, "linnix-test", str(folder))
        return folder

    yield mount
    if folder.is_mount():
        as_root("umount", "--lazy", str(folder))


@pytest.fixture
def ordinary_folder():
    """A folder of a user without privileges, who is also who runs the test meanwhile."""
    folder = Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)
