"""A sink that notes what it is given, and fails when it is told to."""

import threading
import time
from collections import deque
from typing import ClassVar

import attrs
import pytest

from linnix_plugin_notify import NotifyConfig, NotifyHandler


class NotingSink:
    """Notes every message; fails with what is in ``failures`` first."""

    def __init__(self, updates=True, idempotent=True):
        self.updates = updates
        self.idempotent = idempotent
        self.delivered = []
        self.failures = deque()
        self.changed = threading.Condition()

    def deliver(self, message, to, receipt, *, again):
        with self.changed:
            if self.failures:
                raise self.failures.popleft()
            self.delivered.append((message, to, again))
            self.changed.notify_all()
        return {**receipt, "version": message.version}

    def close(self):
        pass

    def wait_for(self, count, timeout_s=60):
        with self.changed:
            return self.changed.wait_for(lambda: len(self.delivered) >= count, timeout_s)

    @property
    def changes(self):
        return [message.change for message, _, _ in self.delivered]


@attrs.frozen(kw_only=True)
class NotingConfig(NotifyConfig):
    """Nothing of its own."""


class NotingHandler(NotifyHandler):
    """Tells the sink of the test."""

    Config = NotingConfig
    sink: ClassVar[NotingSink]

    @classmethod
    def open_sink(cls, config, logger):
        return cls.sink


@pytest.fixture
def sink():
    NotingHandler.sink = NotingSink()
    return NotingHandler.sink


@pytest.fixture
def noting(sink):
    """The class, for a real agent."""
    return NotingHandler


class Clock:
    """The real one, and by how much it was moved."""

    def __init__(self):
        self.moved_ns = 0

    def time_ns(self):
        return time.time_ns() + self.moved_ns

    def monotonic(self):
        return time.monotonic()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(linnix_context, sink, clock):
    """A started handler on the outbox of this test; stopped at the end."""
    started = []

    def make(**options):
        options.setdefault("update_every", 0.0)
        config = NotingConfig(**options)
        handler = NotingHandler(config, linnix_context("handlers.noting", clock=clock))
        handler.linnix_start()
        handler.linnix_ready()
        started.append(handler)
        return handler

    yield make
    for handler in started:
        handler.linnix_stop(time.monotonic() + 10)
