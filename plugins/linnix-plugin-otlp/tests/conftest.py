"""What the tests of this plugin share."""

import os
import sys
import time
from pathlib import Path

import pytest

from linnix_core import Batch, ProcessEvent
from linnix_plugin_otlp import OtlpConfig, OtlpHandler

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Tests are imported by path (importlib mode): what they share is found there too.
sys.path.insert(0, str(Path(__file__).parent))
from otlp_collector import GrpcCollector, HttpCollector


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    """What the environment of whoever runs the tests says of OpenTelemetry is not for these."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector():
    collector = HttpCollector()
    yield collector
    collector.close()


@pytest.fixture
def grpc_collector():
    collector = GrpcCollector()
    yield collector
    collector.close()


@pytest.fixture(params=["http", "grpc"])
def any_collector(request):
    """The same test with either protocol."""
    collector = HttpCollector() if request.param == "http" else GrpcCollector()
    collector.protocol = request.param
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def authority():
    import trustme

    return trustme.CA()


@pytest.fixture
def make_handler(linnix_context):
    """Handlers that were started, and are stopped at the end of the test."""
    made = []

    def make(collector=None, *, parts=None, **options):
        if collector is not None:
            options.setdefault("endpoint", collector.endpoint)
            options.setdefault("protocol", getattr(collector, "protocol", None))
        options.setdefault("delay", 0.02)
        options.setdefault("metrics_interval", 0)
        handler = OtlpHandler(OtlpConfig(**options), linnix_context("handlers.otlp", **parts or {}))
        made.append(handler)
        handler.linnix_start()
        handler.linnix_ready()
        return handler

    yield make
    for handler in made:
        handler.linnix_stop(deadline=time.monotonic() + 5)


@pytest.fixture
def make_events():
    """Batches of exec events, numbered on by their ``seq``."""
    made = 0

    def make(count=1, **fields):
        nonlocal made
        first, made = made + 1, made + count
        return Batch(
            [
                ProcessEvent(
                    "exec",
                    **{"pid": 7, "start_ns": 10**7, "comm": "cc", "host": "h", **fields},
                    seq=seq,
                    ts_ns=1_795_342_530_000_000_000 + seq,
                )
                for seq in range(first, made + 1)
            ]
        )

    return make


def attributes(message):
    """The attributes of a decoded message as a dictionary."""
    return {each.key: value_of(each.value) for each in message.attributes}


def value_of(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, kind)


@pytest.fixture(name="attributes")
def _attributes():
    return attributes
