"""What the tests of this plugin share."""

import contextlib
import logging
import os
import subprocess
import time

import pytest
from click.testing import CliRunner

from linnix_core import Alert, Batch, Incident, Insight, ProcessEvent
from linnix_plugin_sqlite import SqliteConfig, SqliteHandler
from linnix_plugin_sqlite.command import history

#: 2026-01-01 10:15:30 UTC.
NOW_NS = 1_767_262_530_000_000_000


class SetClock:
    """A clock that stands where it was set."""

    def __init__(self):
        self.ns = NOW_NS

    def time_ns(self):
        return self.ns

    def monotonic(self):
        return self.ns / 1e9


@pytest.fixture
def now_ns():
    return NOW_NS


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.db"


@pytest.fixture
def make_handler(path, linnix_context, clock):
    """Handlers that are built but not started, with their database in a folder of the test."""
    made = []

    def make(**options):
        options.setdefault("path", path)
        handler = SqliteHandler(
            SqliteConfig(**options), linnix_context("handlers.sqlite", clock=clock)
        )
        made.append(handler)
        return handler

    yield make
    for handler in made:
        stop(handler)


def stop(handler):
    handler.linnix_stop(deadline=time.monotonic() + 30)


@pytest.fixture
def stop_handler():
    return stop


@pytest.fixture
def start_handler(make_handler):
    def start(**options):
        handler = make_handler(**options)
        handler.linnix_start()
        return handler

    return start


@pytest.fixture
def make_event(now_ns):
    """Events numbered on by their ``seq``, a millisecond apart."""
    made = 0

    def make(kind="fork", pid=7, **parts):
        nonlocal made
        made += 1
        parts = {
            "start_ns": 10**7, "comm": "sh", "ts_ns": now_ns + made * 10**6, "boot_id": "boot",
            "host": "testhost", "run_id": "testrun", **parts,
        }  # fmt: skip
        return ProcessEvent(kind, pid=pid, seq=made, **parts)

    return make


@pytest.fixture
def make_batch(make_event):
    """Batches of forks, each of a process of its own."""
    pids = iter(range(1000, 10**9))

    def make(count=3, **parts):
        return Batch([make_event(pid=next(pids), **parts) for _ in range(count)])

    return make


@pytest.fixture
def make_notices(now_ns):
    """An alert, its incident and the insight into that, at a moment."""

    def make(number=1, ts_ns=now_ns, message="too many forks"):
        stamp = {"ts_ns": ts_ns, "seq": 10_000 + number, "run_id": "testrun", "host": "testhost"}
        name = f"testrun-i{number}"
        return (
            Alert("fork-storm", "high", message, "fork_storm", id=f"a{number}", **stamp),
            Incident("f00", "high", message, "fork_storm", id=name, opened_ns=ts_ns, **stamp),
            Insight("fork_storm", 0.9, "sh", message, (), incident=name, **stamp),
        )

    return make


@pytest.fixture
def logged():
    """What the component logs."""

    class Listed(logging.Handler):
        def emit(self, record):
            records.append((record.levelname, record.getMessage()))

    records = []
    logger, listed = logging.getLogger("linnix.handlers.sqlite"), Listed()
    before = logger.level
    logger.addHandler(listed)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(listed)
    logger.setLevel(before)


@pytest.fixture
def linnix_history(path):
    """Run ``linnix history`` on the database of the test; what it printed."""

    def run(*arguments):
        result = CliRunner().invoke(history, [*arguments, "--db", str(path)])
        if result.exception:
            raise result.exception
        return result.stdout

    return run


@pytest.fixture
def cannot_run():
    """Skips with a reason, but fails where every test has to run."""

    def cannot(reason):
        if os.environ.get("CI") == "true":
            pytest.fail(f"must run here, and cannot: {reason}")
        pytest.skip(reason)

    return cannot


@pytest.fixture
def small_disk(tmp_path, cannot_run):
    """``small_disk("size=2m")``: a folder that is a tmpfs of its own."""
    folder = tmp_path / "disk"
    before = () if os.geteuid() == 0 else ("sudo", "-n")

    def as_root(*command):
        try:
            done = subprocess.run([*before, *command], capture_output=True, text=True)
        except FileNotFoundError as missing:
            cannot_run(str(missing))
        if done.returncode:
            cannot_run(f"{' '.join(command)}: {done.stderr.strip()}")

    def mount(options):
        folder.mkdir(exist_ok=True)
        as_root("mount", "-t", "tmpfs", "-o", options, "linnix-test", str(folder))
        return folder

    yield mount
    if folder.is_mount():
        as_root("umount", "--lazy", str(folder))


@pytest.fixture
def without_privileges():
    """``with without_privileges(folder)``: who runs the test owns the folder, and is not root."""

    @contextlib.contextmanager
    def become(folder):
        was_root = os.geteuid() == 0
        if was_root:
            for parent in folder.parents:
                if (
                    parent.stat().st_uid == 0
                    and parent != parent.parent
                    and not (parent.stat().st_mode & 0o001)
                ):
                    parent.chmod(parent.stat().st_mode | 0o011)
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield
        finally:
            if was_root:
                os.seteuid(0)

    return become
