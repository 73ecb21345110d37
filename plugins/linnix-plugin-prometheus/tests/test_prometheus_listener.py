"""The application and the second listener, asked over real sockets."""

import logging
import re
import socket
import time

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from linnix_core import Batch, ComponentStatus, PluginUnavailable, ProcessEvent
from linnix_core.commands import structure
from linnix_plugin_prometheus import PrometheusConfig, PrometheusHandler
from linnix_plugin_prometheus.app import wants_openmetrics

EBPF = ComponentStatus("collectors.ebpf", "collectors", "ebpf", "running", plugin="ebpf")
PSUTIL = ComponentStatus("collectors.psutil", "collectors", "psutil", "running", plugin="psutil")
BROKEN = ComponentStatus(
    "collectors.ebpf", "collectors", "ebpf", "unavailable", "", "needs CAP_BPF", plugin="ebpf"
)


@pytest.fixture
def client(linnix_runtime, linnix_records):
    """A client of the second listener of a real agent."""
    agent = linnix_runtime(
        handlers={"prometheus": PrometheusHandler},
        options={"handlers.prometheus": {"metrics_listen": "127.0.0.1:0"}},
        records=linnix_records(500),
    )
    assert agent.wait_idle(30)
    (component,) = (c for c in agent.host.components if c.name == "prometheus")
    with httpx.Client(base_url=f"http://127.0.0.1:{component.instance.port}") as client:
        yield client


@pytest.fixture
def listening(linnix_context):
    """Start a handler with a second listener, and return a client of it."""
    made = []

    def make(*components, source="kernel", **config):
        context = linnix_context("handlers.prometheus", components=lambda: components)
        handler = PrometheusHandler(
            PrometheusConfig(metrics_listen="127.0.0.1:0", **config), context
        )
        handler.linnix_start(context)
        handler.linnix_ready()
        handler.linnix_handle(Batch([ProcessEvent("fork", pid=2, start_ns=0, source=source)]))
        made.append((handler, httpx.Client(base_url=f"http://127.0.0.1:{handler.port}")))
        return made[-1][1]

    yield make
    for handler, client in made:
        client.close()
        handler.linnix_stop(time.monotonic() + 10)


def test_a_running_agent_serves_its_metrics(client):
    assert client.get("/metrics").status_code == 200
    answer = client.get("/metrics/prometheus")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    received = re.search(
        r'linnix_component_records_total\{component="collectors.given",outcome="received"\} (\d+)',
        answer.text,
    )
    assert int(received[1]) == 500
    assert "\nlinnix_processes " in answer.text  # the agent's own, through Context.metrics


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; escaping=allow-utf-8", True),
        ("application/openmetrics-text;version=0.0.1, */*;q=0.1", False),
        ("application/openmetrics-text;version=;;;=,", False),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("text/plain, application/openmetrics-text", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_openmetrics_is_for_who_asks_first_for_it(accept, openmetrics):
    assert wants_openmetrics(accept) == openmetrics


def test_both_formats_are_served(listening):
    client = listening()
    for accept in ("application/openmetrics-text;version=1.0.0", "*/*"):
        answer = client.get("/metrics/prometheus", headers={"accept": accept})
        kind, _, version = answer.headers["content-type"].partition(";")
        openmetrics = kind == "application/openmetrics-text"
        assert openmetrics == accept.startswith(kind)
        assert ("version=1.0.0" in version) == openmetrics
        assert answer.text.endswith("# EOF\n") == openmetrics
        if openmetrics:
            assert list(text_string_to_metric_families(answer.text))


def test_only_get_is_possible(listening):
    client = listening()
    for path in ("/metrics/prometheus", "/healthz"):
        answer = client.post(path, content=b"x")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert client.head(path).content == b""


def test_nothing_else_is_there(listening):
    client = listening()
    for path in ("/", "/processes", "/metrics/", "/status", "/../etc/passwd"):
        assert client.get(path).status_code == 404


def test_health_is_told_as_the_original_does(listening):
    answer = listening(EBPF).get("/healthz")
    assert answer.json() == {
        "status": "ok",
        "kernel_instrumentation": "active",
        "transport": "ebpf",
    }


@pytest.mark.parametrize(
    ("components", "source", "transport", "reason"),
    [
        (
            [PSUTIL, BROKEN],
            "polled",
            "userspace",
            (
                "processes are polled by collectors.psutil, not seen by the kernel "
                "(collectors.ebpf is unavailable: needs CAP_BPF)"
            ),
        ),
        (
            [PSUTIL],
            "polled",
            "userspace",
            "processes are polled by collectors.psutil, not seen by the kernel",
        ),
        ([EBPF], "polled", "ebpf", "collectors.ebpf has not seen an event yet"),
        ([], "kernel", "userspace", "processes are polled by nobody, not seen by the kernel"),
    ],
)
def test_an_agent_that_does_not_see_the_kernel_is_not_ready(
    listening, components, source, transport, reason
):
    answer = listening(*components, source=source).get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "kernel_instrumentation": "unavailable",
        "transport": transport,
        "reason": reason,
    }


def test_require_kernel_can_be_given_up(listening):
    assert listening(EBPF).get("/readyz").status_code == 200
    answer = listening(PSUTIL, source="polled", require_kernel=False).get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


def test_it_serves_before_the_first_record_comes(linnix_context):
    context = linnix_context("handlers.prometheus")
    handler = PrometheusHandler(PrometheusConfig(metrics_listen="127.0.0.1:0"), context)
    handler.linnix_start(context)
    handler.linnix_ready()
    url = f"http://127.0.0.1:{handler.port}/healthz"
    assert handler.linnix_health().status == "ok"
    assert httpx.get(url).status_code == 200
    handler.linnix_stop(time.monotonic() + 10)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_request_may_name_this_machine(listening):
    client = listening()
    for host in ("localhost:9464", "127.0.0.1", "[::1]:9464", "LOCALHOST"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200, host


def test_a_page_that_was_rebound_to_this_machine_gets_nothing(listening):
    client = listening()
    for host in ("evil.example:9464", "127.0.0.1.evil.example", "", "[x]"):
        for path in ("/healthz", "/metrics/prometheus"):
            assert client.get(path, headers={"host": host}).status_code == 421, host


def test_what_cannot_be_gathered_is_an_error_without_a_trace(linnix_context, listening, caplog):
    def broken():
        raise ZeroDivisionError("secret detail")

    context = linnix_context("handlers.prometheus", metrics=broken)
    handler = PrometheusHandler(PrometheusConfig(metrics_listen="127.0.0.1:0"), context)
    handler.linnix_start(context)
    handler.linnix_ready()
    handler.linnix_handle([])
    with caplog.at_level(logging.ERROR):
        answer = httpx.get(f"http://127.0.0.1:{handler.port}/metrics")
    handler.linnix_stop(time.monotonic() + 10)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_scrapes_within_a_second_ask_the_components_once(linnix_context):
    asked = []
    context = linnix_context("handlers.prometheus", metrics=lambda: asked.append(1) or ())
    handler = PrometheusHandler(PrometheusConfig(), context)
    handler.render()
    handler.render(openmetrics=True)
    assert len(asked) == 1


def test_the_mount_is_where_the_original_has_it(linnix_context):
    context = linnix_context("handlers.prometheus")
    (mount,) = PrometheusHandler(PrometheusConfig(), context).linnix_http()
    assert mount.path == "/metrics/prometheus"
    answer = asgi_get(mount.app)
    assert answer.text.startswith("# HELP linnix_kernel_instrumentation_active ")


def asgi_get(app):
    """Ask an ASGI application as a server that mounts it would."""
    import asyncio

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/metrics/prometheus")

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "host.example:9464"]
)
def test_no_address_that_others_reach_is_accepted(address):
    problems = []
    structure(PrometheusConfig, {"metrics_listen": address}, "handlers.prometheus", problems)
    (problem,) = problems
    assert "metrics_listen: must be an address of this machine only" in str(problem)
    assert "with a token" in str(problem)


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "127.0.0.1:99999", "::1:9464", ":9464"])
def test_what_is_no_address_is_said(address):
    with pytest.raises(ValueError, match=r"metrics_listen: expected an address such as"):
        PrometheusConfig(metrics_listen=address)


@pytest.mark.parametrize("top", [-1, 1001])
def test_top_has_bounds(top):
    with pytest.raises(ValueError, match="top must be from 0 to 1000"):
        PrometheusConfig(top=top)


def test_a_port_that_is_taken_makes_it_unavailable(linnix_context):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        context = linnix_context("handlers.prometheus")
        address = f"127.0.0.1:{other.getsockname()[1]}"
        handler = PrometheusHandler(PrometheusConfig(metrics_listen=address), context)
        with pytest.raises(PluginUnavailable, match=rf"{address} cannot be had: Address already"):
            handler.linnix_start(context)
        handler.linnix_ready()
        handler.linnix_stop(time.monotonic() + 10)
