"""What arrives at a Collector, and what happens when it does not take it."""

import logging
import ssl
import threading
import time

import grpc
import pytest
from otlp_collector import GrpcCollector, HttpCollector

from linnix_core import (
    Alert,
    Batch,
    Evidence,
    Incident,
    Loss,
    Metric,
    PluginUnavailable,
    ProcessSample,
    RecordsLost,
    Secret,
    Subject,
)
from linnix_core.testing.secrets import QuotingRule, commands_with_secrets, leaked
from linnix_core.testing.waiting import eventually
from linnix_plugin_otlp import OtlpConfig, OtlpHandler


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("linnix_plugin_otlp.sending.FIRST_PAUSE_S", 0.05)


def counters(handler):
    return {metric.name: metric.value for metric in handler.linnix_metrics()}


def test_every_event_arrives_once_and_in_order(
    any_collector, make_handler, make_events, attributes
):
    handler = make_handler(any_collector, batch_size=10)
    for _ in range(5):
        handler.linnix_handle(make_events(7))
    records = any_collector.wait_for_logs(35)
    assert [attributes(record)["linnix.seq"] for record in records] == list(range(1, 36))
    assert {record.event_name for record in records} == {"linnix.process.exec"}


def test_notices_arrive_before_the_events_that_wait(any_collector, make_handler, make_events):
    handler = make_handler(any_collector, delay=600, batch_size=1000)
    handler.linnix_handle(make_events(3))
    handler.linnix_alert(Alert("r", "high", "something", id="a", host="h"))
    names = [record.event_name for record in any_collector.wait_for_logs(4)]
    assert names[0] == "linnix.alert"


def test_a_full_batch_does_not_wait_for_the_delay(collector, make_handler, make_events):
    handler = make_handler(collector, delay=600, batch_size=10)
    handler.linnix_handle(make_events(10))
    assert len(collector.wait_for_logs(10)) == 10


def test_a_batch_has_at_most_batch_size_records(collector, make_handler, make_events):
    handler = make_handler(collector, batch_size=4)
    handler.linnix_handle(make_events(10))
    collector.wait_for_logs(10)
    sizes = [
        len(request.resource_logs[0].scope_logs[0].log_records) for request in collector.requests
    ]
    assert sizes == [4, 4, 2]


def test_a_configured_authority_counts_more_than_the_environment_s(
    tls_collector, make_handler, make_events, pem_files, monkeypatch, tmp_path
):
    (tmp_path / "empty.pem").write_bytes(b"")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "empty.pem"))
    handler = make_handler(tls_collector, **pem_files)
    handler.linnix_handle(make_events(1))
    assert len(tls_collector.wait_for_logs(1)) == 1


def test_large_events_are_sent_in_requests_that_a_collector_takes(
    grpc_collector, make_handler, make_events
):
    handler = make_handler(grpc_collector, protocol="grpc", batch_size=1000)
    handler.linnix_handle(make_events(12, args=("x" * 1_000_000,)))
    assert len(grpc_collector.wait_for_logs(12)) == 12
    assert len(grpc_collector.requests) >= 6


def test_only_the_chosen_kinds_of_events_are_sent(collector, make_handler, make_events):
    handler = make_handler(collector, events=("exit",))
    handler.linnix_handle(make_events(3))
    handler.linnix_alert(Alert("r", "low", "the end", id="a"))
    assert [record.event_name for record in collector.wait_for_logs(1)] == ["linnix.alert"]


def test_arguments_are_left_out_on_request(collector, make_handler, make_events, attributes):
    handler = make_handler(collector, arguments=False)
    handler.linnix_handle(make_events(1, args=("cc", "x.c")))
    assert "process.command_args" not in attributes(collector.wait_for_logs(1)[0])


def test_a_hostile_name_arrives_as_it_is(any_collector, make_handler, make_events, attributes):
    name = "<!channel> \x1b[2J\n*b*\u202e🐧"
    handler = make_handler(any_collector)
    handler.linnix_handle(make_events(1, comm=name, args=(name,)))
    record = any_collector.wait_for_logs(1)[0]
    assert attributes(record)["linnix.process.comm"] == name
    assert attributes(record)["process.command_args"] == [name]
    assert record.body.WhichOneof("value") is None


def test_headers_arrive_and_are_shown_nowhere(
    any_collector, make_handler, make_events, caplog, linnix_context
):
    secret = Secret("hunter2-hunter2", source="env TOKEN")
    with caplog.at_level(logging.DEBUG, "linnix"):
        handler = make_handler(any_collector, headers={"X-Token": secret})
        handler.linnix_handle(make_events(1))
        any_collector.wait_for_logs(1)
    headers = {name.lower(): value for name, value in any_collector.headers[0].items()}
    assert headers["x-token"] == "hunter2-hunter2"
    shown = f"{handler._config} {handler.linnix_health()} {caplog.text}"
    assert "hunter2" not in shown
    assert handler.linnix_health().limits == ("headers go to the Collector unencrypted",)


def test_an_exporter_that_does_not_carry_our_request_is_found_out(
    collector, make_handler, make_events, monkeypatch
):
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs.export import LogRecordExportResult

    monkeypatch.setattr(OTLPLogExporter, "export", lambda *_: LogRecordExportResult.SUCCESS)
    handler = make_handler(collector)
    handler.linnix_handle(make_events(3))
    eventually(lambda: counters(handler)["otlp_lost_records"] == 3)
    assert "nothing was sent" in handler.linnix_health().reason


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_requests_are_compressed_as_configured(collector, make_handler, make_events, compression):
    handler = make_handler(collector, compression=compression)
    handler.linnix_handle(make_events(1))
    collector.wait_for_logs(1)
    said = collector.headers[0].get("Content-Encoding")
    assert said == ("gzip" if compression == "gzip" else None)


def test_the_environment_says_where_and_how(grpc_collector, make_handler, make_events, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", grpc_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "processes")
    handler = make_handler()
    handler.linnix_handle(make_events(1))
    grpc_collector.wait_for_logs(1)
    assert grpc_collector.headers[0]["x-tenant"] == "blue"
    resource = grpc_collector.requests[0].resource_logs[0].resource
    assert "processes" in [each.value.string_value for each in resource.attributes]


# --- TLS ----------------------------------------------------------------------------------


@pytest.fixture
def pem_files(authority, tmp_path):
    """Files of the authority, and of a certificate that it made for a client."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = authority.issue_cert("agent@example.org")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return {
        "ca_file": tmp_path / "ca.pem",
        "client_certificate": tmp_path / "cert.pem",
        "client_key": tmp_path / "key.pem",
    }


@pytest.fixture(params=["http", "grpc"])
def tls_collector(request, authority):
    """A Collector that wants to see a certificate of the same authority."""
    server = authority.issue_cert("localhost")
    if request.param == "http":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        collector = HttpCollector(context)
    else:
        pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
        collector = GrpcCollector(
            grpc.ssl_server_credentials(
                [pair], authority.cert_pem.bytes(), require_client_auth=True
            )
        )
    collector.protocol = request.param
    yield collector
    collector.close()


def test_both_sides_show_their_certificates(tls_collector, make_handler, make_events, pem_files):
    handler = make_handler(tls_collector, headers={"x-token": Secret("t")}, **pem_files)
    handler.linnix_handle(make_events(1))
    assert len(tls_collector.wait_for_logs(1)) == 1
    assert handler.linnix_health().limits == ()


def test_a_collector_that_an_unknown_authority_vouches_for_gets_nothing(
    tls_collector, make_handler, make_events
):
    handler = make_handler(tls_collector, timeout=0.5)
    handler.linnix_handle(make_events(1))
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert "cannot be reached" in handler.linnix_health().reason
    assert tls_collector.logs() == []


@pytest.mark.parametrize("signal", ["", "LOGS_", "METRICS_"])
def test_an_environment_that_names_no_address_is_said_before_the_start(
    make_handler, monkeypatch, signal
):
    name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
    monkeypatch.setenv(name, "u:hunter2@localhost:4318")
    with pytest.raises(PluginUnavailable, match=f"{name} does not begin with http") as raised:
        make_handler()
    assert "hunter2" not in str(raised.value)


def test_a_certificate_that_cannot_be_read_is_said_before_the_start(make_handler, tmp_path):
    with pytest.raises(PluginUnavailable, match=r"ca_file cannot be read: .*/none.pem"):
        make_handler(endpoint="https://localhost:1", ca_file=tmp_path / "none.pem")


# --- a Collector in trouble -----------------------------------------------------------------


def busy(collector):
    return 503 if collector.protocol == "http" else grpc.StatusCode.UNAVAILABLE


def wrong(collector):
    return 400 if collector.protocol == "http" else grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_refused_for_now_is_sent_again(any_collector, make_handler, make_events):
    any_collector.answers.append(("retry", 0))
    handler = make_handler(any_collector)
    handler.linnix_handle(make_events(3))
    assert len(any_collector.wait_for_logs(3)) == 3
    assert any_collector.attempts >= 2
    eventually(lambda: counters(handler)["otlp_waiting_records"] == 0)
    assert counters(handler)["otlp_lost_records"] == 0


def test_a_batch_waits_while_the_collector_is_busy(any_collector, make_handler, make_events):
    any_collector.answers.extend([busy(any_collector)] * 2)
    handler = make_handler(any_collector, timeout=0.3)
    handler.linnix_handle(make_events(3))
    assert len(any_collector.wait_for_logs(3)) == 3
    eventually(handler.linnix_health, lambda health: health.status == "ok")
    assert counters(handler)["otlp_failed_exports"] >= 1


def test_retry_after_is_honoured_beyond_the_timeout(any_collector, make_handler, make_events):
    any_collector.answers.append(("retry", 600))
    handler = make_handler(any_collector, timeout=0.3)
    handler.linnix_handle(make_events(3))
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert handler._sender._pause_until > time.monotonic() + 200
    assert any_collector.attempts == 1


def test_what_is_refused_for_good_is_lost_and_counted(any_collector, make_handler, make_events):
    any_collector.answers.append(wrong(any_collector))
    handler = make_handler(any_collector)
    handler.linnix_handle(make_events(3))
    eventually(lambda: counters(handler)["otlp_lost_records"] == 3)
    with pytest.raises(RecordsLost, match="refuses the data") as lost:
        handler.linnix_flush()
    assert (lost.value.count, lost.value.why) == (3, "refused")
    handler.linnix_flush()  # counted once
    handler._sender._pause_until = 0
    handler.linnix_handle(make_events(2))
    any_collector.wait_for_logs(2)


def test_a_redirection_is_no_delivery(collector, make_handler, make_events):
    collector.answers.append(302)
    handler = make_handler(collector)
    handler.linnix_handle(make_events(3))
    eventually(lambda: counters(handler)["otlp_lost_records"] == 3)
    assert "(302)" in handler.linnix_health().reason


def test_too_many_notices_push_out_the_oldest(make_handler, monkeypatch):
    monkeypatch.setattr("linnix_plugin_otlp.waiting.MAX_NOTICES", 3)
    handler = make_handler(endpoint="http://127.0.0.1:9", timeout=0.2, batch_size=1)
    for number in range(10):
        handler.linnix_alert(Alert("r", "high", "an alert", id=str(number)))
    eventually(lambda: counters(handler)["otlp_lost_records"] >= 6)
    assert counters(handler)["otlp_waiting_records"] <= 4


def test_what_a_collector_takes_only_in_part_is_counted(any_collector, make_handler, make_events):
    any_collector.answers.append(("partial", 2, "too\nold"))
    handler = make_handler(any_collector)
    handler.linnix_handle(make_events(5))
    eventually(lambda: counters(handler)["otlp_exported_records"] == 3)
    assert counters(handler)["otlp_lost_records"] == 2
    assert "refused 2 of 5: too\\x0aold" in handler.linnix_health().reason
    # Whatever has gone well since: what was lost keeps its reason.
    handler.linnix_handle(make_events(1))
    eventually(lambda: counters(handler)["otlp_exported_records"] == 4)
    with pytest.raises(RecordsLost, match="refused 2 of 5") as lost:
        handler.linnix_flush()
    assert (lost.value.count, lost.value.why) == (2, "refused")


def test_the_oldest_go_when_the_queue_is_full(any_collector, make_handler, make_events, attributes):
    gate = threading.Event()
    any_collector.answers.append(gate)
    handler = make_handler(any_collector, max_queue=10, batch_size=2)
    handler.linnix_handle(make_events(2))
    any_collector.wait_for(lambda: any_collector.attempts == 1)
    handler.linnix_handle(make_events(10))
    with pytest.raises(RecordsLost, match="max_queue") as lost:
        handler.linnix_handle(make_events(4))
    assert (lost.value.count, lost.value.why) == (4, "queue_full")
    gate.set()
    seqs = [attributes(record)["linnix.seq"] for record in any_collector.wait_for_logs(12)]
    assert seqs == [1, 2, *range(7, 17)]


def test_a_flood_of_events_pushes_out_no_alert(collector, make_handler, make_events):
    gate = threading.Event()
    collector.answers.append(gate)
    handler = make_handler(collector, max_queue=3)
    handler.linnix_handle(make_events(1))
    collector.wait_for(lambda: collector.attempts == 1)
    handler.linnix_alert(Alert("r", "high", "an alert", id="a"))
    for _ in range(10):
        with pytest.raises(RecordsLost):
            handler.linnix_handle(make_events(4))
    gate.set()
    names = [record.event_name for record in collector.wait_for_logs(5)]
    assert "linnix.alert" in names


def test_a_collector_that_hangs_holds_back_nobody(collector, make_handler, make_events):
    gate = threading.Event()
    collector.answers.append(gate)
    handler = make_handler(collector, timeout=600)
    handler.linnix_handle(make_events(1))
    collector.wait_for(lambda: collector.attempts == 1)
    # Each of these would wait for ten minutes if it waited for the Collector.
    handler.linnix_handle(make_events(1))
    handler.linnix_alert(Alert("r", "high", "an alert", id="a"))
    handler.linnix_flush()
    assert handler.linnix_health().status == "ok"
    gate.set()
    collector.wait_for_logs(3)


def test_a_collector_that_is_not_there_loses_nothing_until_the_queue_is_full(
    make_handler, make_events
):
    handler = make_handler(endpoint="http://127.0.0.1:9", timeout=0.2)
    handler.linnix_handle(make_events(5))
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert "cannot be reached (ConnectionError); 5 records wait" in handler.linnix_health().reason
    handler.linnix_flush()
    assert counters(handler)["otlp_lost_records"] == 0


def test_stopping_sends_what_waits(any_collector, make_handler, make_events):
    handler = make_handler(any_collector, delay=600, batch_size=1000)
    handler.linnix_handle(make_events(5))
    handler.linnix_stop(deadline=time.monotonic() + 20)
    assert len(any_collector.logs()) == 5


def test_stopping_gives_up_what_the_collector_does_not_take(make_handler, make_events, logged):
    handler = make_handler(endpoint="http://127.0.0.1:9", timeout=600)
    handler.linnix_handle(make_events(5))
    handler.linnix_alert(Alert("r", "high", "an alert", id="a"))
    handler.linnix_stop(deadline=time.monotonic() + 1)
    assert not [t for t in threading.enumerate() if t.name == "linnix-otlp"]
    assert counters(handler)["otlp_lost_records"] == 6
    assert "5 events and 1 notices did not reach the Collector" in logged[-1]


def test_the_flush_at_the_end_of_a_run_counts_before_it_is_over(
    collector, make_handler, make_events
):
    handler = make_handler(collector, delay=600, batch_size=1000)
    handler.linnix_handle(make_events(5))
    handler._context.stop.set()
    handler.linnix_flush()
    assert len(collector.wait_for_logs(5)) == 5


def test_trouble_is_logged_once_and_its_end_too(collector, make_handler, make_events, logged):
    collector.answers.extend([503] * 2)
    handler = make_handler(collector, timeout=0.2)
    handler.linnix_handle(make_events(1))
    collector.wait_for_logs(1)
    eventually(lambda: len(logged) == 2)
    assert logged == [
        "the Collector cannot take more now (503)",
        "the Collector takes what it gets again",
    ]


@pytest.fixture
def logged():
    """What the component logs, whether or not a run in this process set up the log."""

    class Listed(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    messages = []
    logger, listed = logging.getLogger("linnix.handlers.otlp"), Listed()
    before = logger.level
    logger.addHandler(listed)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(listed)
    logger.setLevel(before)


# --- metrics --------------------------------------------------------------------------------


def sample(seq, pid=7, **more):
    return ProcessSample(
        pid=pid,
        start_ns=10**7,
        interval_ns=10**9,
        ts_ns=10**18 + seq * 10**9,
        seq=seq,
        host="h",
        **more,
    )


def points(metrics, name):
    return [
        point
        for metric in metrics
        if metric.name == name
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


def test_samples_losses_and_components_numbers_arrive_as_metrics(any_collector, make_handler):
    told = [Metric("jsonl_written_bytes", 512, "By", "counter", {"component": "handlers.jsonl"})]
    handler = make_handler(any_collector, metrics_interval=0.05, parts={"metrics": lambda: told})
    handler.linnix_handle(
        Batch(
            [
                sample(1, cpu_percent=50.0, rss_bytes=4096),
                Loss("handlers.jsonl", "disk_full", 2, 9, 10**10, ts_ns=10**18, host="h"),
            ]
        )
    )
    any_collector.wait_for(
        lambda: (
            {
                "process.memory.usage",
                "linnix.records.lost",
                "linnix.jsonl_written_bytes",
            }
            <= {metric.name for metric in any_collector.metrics()}
        )
    )
    metrics = any_collector.metrics()
    (memory, *_) = [each for each in metrics if each.name == "process.memory.usage"]
    assert not memory.sum.is_monotonic
    assert memory.sum.data_points[0].as_int == 4096
    (lost, *_) = [each for each in metrics if each.name == "linnix.records.lost"]
    assert lost.sum.is_monotonic
    assert lost.sum.data_points[0].as_int == 9
    assert lost.sum.aggregation_temporality == 2  # cumulative


def test_without_an_interval_there_are_no_metrics(collector, make_handler, make_events):
    handler = make_handler(collector, metrics_interval=0)
    handler.linnix_handle(Batch([sample(1, rss_bytes=1), *make_events(1)]))
    collector.wait_for_logs(1)
    handler.linnix_stop(deadline=time.monotonic() + 20)
    assert collector.metrics() == []


def test_the_last_metrics_are_sent_at_the_end(collector, make_handler):
    handler = make_handler(collector, metrics_interval=600)
    handler.linnix_handle(Batch([sample(1, rss_bytes=1)]))
    handler.linnix_stop(deadline=time.monotonic() + 20)
    assert len(points(collector.metrics(), "process.memory.usage")) == 1


def test_only_the_largest_processes_have_series(collector, make_handler):
    handler = make_handler(collector, metrics_interval=600, top=2)
    handler.linnix_handle(
        Batch([sample(n, pid=n, cpu_percent=float(n), rss_bytes=100 - n) for n in range(1, 21)])
    )
    handler.linnix_stop(deadline=time.monotonic() + 20)
    assert len(points(collector.metrics(), "process.memory.usage")) == 4


# --- configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "localhost:4318"}, "endpoint must begin with http://"),
        ({"endpoint": "http://u:hunter2@h:1"}, "use headers"),
        ({"headers": {"a b": Secret("x")}}, "'a b' is no name of a header"),
        ({"headers": {"a": Secret("x\r\ny: z")}}, "headers: the value of a is no printable"),
        ({"client_key": "/k"}, "client_certificate goes with client_key"),
        ({"timeout": 0}, "timeout must be at least 0.1"),
        ({"delay": 0}, "delay must be at least 0.01"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_queue": 0}, "max_queue must be at least 1"),
        ({"top": 1001}, "top must be from 0 to 1000"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_without_a_secret(options, said):
    with pytest.raises(ValueError, match=said) as mistake:
        OtlpConfig(**options)
    assert "hunter2" not in str(mistake.value)


def test_grpc_that_is_not_installed_is_said_with_the_next_step(make_handler, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginUnavailable, match="gRPC is not installed") as missing:
        make_handler(protocol="grpc", endpoint="http://localhost:1")
    assert "[grpc]" in missing.value.hint


def test_a_real_run_delivers_every_event_and_counts_no_loss(
    collector, linnix_runtime, linnix_records, attributes
):
    records = linnix_records(600)
    events = [record for record in records if record.type == "event"]
    agent = linnix_runtime(
        handlers={"otlp": OtlpHandler},
        options={"handlers.otlp": {"endpoint": collector.endpoint, "delay": "50ms"}},
        records=records,
    )
    assert agent.wait_idle(30)
    sent = [r for r in collector.wait_for_logs(len(events)) if "process" in r.event_name]
    assert len({attributes(record)["linnix.seq"] for record in sent}) == len(events)
    agent.stop()
    assert collector.metrics()
    (status,) = [each for each in agent.status() if each.name == "otlp"]
    assert status.counters["dropped"] == 0


def test_an_incident_arrives_with_its_sentence_and_numbers(collector, make_handler, attributes):
    handler = make_handler(collector)
    handler.linnix_incident(
        Incident(
            "f",
            "high",
            "it burns",
            subject=Subject(comm="cc"),
            id="i",
            rules=("r",),
            evidence=(Evidence("cpu", 99.0, "%"),),
        )
    )
    record = collector.wait_for_logs(1)[0]
    assert (record.event_name, record.body.string_value) == ("linnix.incident.opened", "it burns")
    assert attributes(record)["linnix.evidence.cpu"] == 99.0


def test_no_secret_of_a_command_line_reaches_the_collector(linnix_runtime, any_collector):
    records = commands_with_secrets(seed=12)
    options = {
        "endpoint": any_collector.endpoint, "protocol": any_collector.protocol, "delay": 0.02,
        "metrics_interval": 0,
    }  # fmt: skip
    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "otlp": OtlpHandler},
        records=records,
        options={"handlers.otlp": options},
    )
    assert agent.wait_idle(60)
    logs = any_collector.wait_for_logs(3 * len(records))
    sent = "\n".join(map(str, logs))
    assert leaked(sent, seed=12) == []
    assert sent.count("quoted: ") >= len(records)
