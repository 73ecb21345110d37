"""What a record becomes: compared with golden files, its names with the conventions' own list."""

import importlib
import json
import os
import pkgutil
import re
from pathlib import Path

import otlp_specimens as specimens
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.semconv import _incubating

from linnix_core import ProcessEvent
from linnix_plugin_otlp import __version__
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.encoding import OriginatedEvent, log_request, metrics_data
from linnix_plugin_otlp.gathering import Gathering
from linnix_plugin_otlp.mapping import log_event
from linnix_plugin_otlp.points import process_points, system_points
from linnix_plugin_otlp.resources import Origin, Resources, attributes_of, machine

GOLDEN = Path(__file__).parent / "golden"
BIRTHS = Births({specimens.BOOT: specimens.BOOTED_NS})
HERE = Origin("web-1", specimens.BOOT, "run-1")


def check_golden(name, document):
    """Compare with the file; LINNIX_WRITE_GOLDEN=1 writes it, for a person to read."""
    text = json.dumps(readable(document), indent=1) + "\n"
    text = text.replace(f'"{__version__}"', '"VERSION"')
    if os.environ.get("LINNIX_WRITE_GOLDEN") == "1":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def plain(value):
    ((kind, held),) = value.items()
    return [plain(each) for each in held["values"]] if kind == "arrayValue" else f"{kind}: {held}"


def readable(document):
    """Attributes as ``name: value`` instead of OTLP's lists of pairs."""
    if isinstance(document, list):
        return [readable(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        name: {each["key"]: plain(each["value"]) for each in value}
        if name == "attributes"
        else readable(value)
        for name, value in document.items()
    }


def encoded(messages, kind):
    """Through the wire and back, as a dictionary."""
    return MessageToDict(kind.FromString(messages.SerializeToString()))


def encoded_logs(records):
    events = [OriginatedEvent(HERE, log_event(record, BIRTHS)) for record in records]
    request = log_request(events, Resources("elsewhere", {}), specimens.NOW_NS + 1)
    return encoded(request, ExportLogsServiceRequest)


def gathered(delta=False, **more):
    gathering = Gathering(BIRTHS, top=5, delta=delta, cpus=4, began_ns=specimens.BOOTED_NS, **more)
    gathering.add(specimens.every_sample())
    return gathering


def encoded_metrics(values, delta=False):
    data = metrics_data(values, Resources("elsewhere", {}), delta=delta)
    return encoded(encode_metrics(data), ExportMetricsServiceRequest)


def conventions():
    """Every attribute and metric that the package of the semantic conventions has."""
    attributes, metrics = set(), {}
    for family in ("attributes", "metrics"):
        package = importlib.import_module(f"{_incubating.__name__}.{family}")
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, value in vars(module).items():
                if family == "attributes" and name.isupper() and isinstance(value, str):
                    attributes.add(value)
            if family == "metrics":
                source = Path(module.__file__).read_text()
                for each in re.finditer(
                    r'Final = "(?P<name>[\w.]+)"\n"""\n(?P<text>.*?)"""', source, re.DOTALL
                ):
                    instrument = re.search(r"Instrument: (\w+)", each["text"])
                    unit = re.search(r"Unit: (\S+)", each["text"])
                    if instrument and "Deprecated" not in each["text"]:
                        metrics[each["name"]] = (instrument[1], unit[1])
    return attributes, metrics


ATTRIBUTES, METRICS = conventions()


def test_log_request_are_as_in_the_golden_file():
    check_golden("logs.json", encoded_logs(specimens.every_log_record()))


def test_metrics_are_as_in_the_golden_file():
    values = gathered().values(specimens.component_metrics(), HERE, specimens.NOW_NS)
    check_golden("metrics.json", encoded_metrics(values))


def test_every_attribute_is_one_of_the_conventions_or_begins_with_linnix():
    for record in specimens.every_log_record():
        for name in log_event(record, BIRTHS).attributes:
            assert name in ATTRIBUTES or name.startswith("linnix."), name


def test_every_attribute_of_a_metric_or_resource_is_one_of_the_conventions_or_ours():
    values = gathered().values(specimens.component_metrics(), HERE, specimens.NOW_NS)
    names = {name for value in values for name, _ in value.point.series.attributes}
    names |= set(attributes_of(HERE, machine()))
    assert {"process.pid", "service.name"} <= names
    for name in names:
        assert name in ATTRIBUTES or name.startswith("linnix."), name


def test_a_metric_with_a_name_of_the_conventions_has_their_instrument_and_unit():
    values = gathered().values(specimens.component_metrics(), HERE, specimens.NOW_NS)
    series = {value.point.series for value in values}
    theirs = [each for each in series if not each.name.startswith("linnix")]
    assert len({each.name for each in theirs}) >= 9
    for each in theirs:
        assert METRICS[each.name] == (each.instrument, each.unit), each


def test_a_process_is_identified_by_its_pid_and_the_moment_of_its_creation():
    at_exec, at_exit = (
        log_event(record, BIRTHS).attributes for record in (specimens.event(), specimens.ending())
    )
    assert at_exec["process.pid"] == 4242
    assert at_exec["process.creation.time"] == "2026-11-22T10:06:40.000Z"
    assert at_exec["process.creation.time"] == at_exit["process.creation.time"]


def test_where_the_boot_is_not_known_the_start_since_boot_stands_for_the_creation():
    attributes = log_event(specimens.event(), Births({})).attributes
    assert "process.creation.time" not in attributes
    assert attributes["linnix.process.start_ns"] == 42_000_000_000_000


def test_another_machine_s_boot_is_learnt_from_its_first_fork():
    births = Births({})
    log_event(ProcessEvent("fork", pid=1, start_ns=10**9, ts_ns=10**18, boot_id="x"), births)
    event = ProcessEvent("exec", pid=2, start_ns=2 * 10**9, ts_ns=10**18 + 10**10, boot_id="x")
    assert log_event(event, births).attributes["process.creation.time"] == (
        "2001-09-09T01:46:41.000Z"
    )


def test_the_boot_of_this_machine_is_known():
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert Births().created(boot_id, 0) is not None


def test_arguments_can_be_left_out():
    attributes = log_event(specimens.event(), BIRTHS, arguments=False).attributes
    assert attributes["process.args_count"] == 3
    assert not {"process.command", "process.command_args"} & set(attributes)


def test_an_incident_that_is_over_is_no_trouble_any_more():
    severities = [
        log_event(specimens.incident(change), BIRTHS).severity for change in ("worse", "closed")
    ]
    assert severities == ["high", "info"]


def test_a_process_that_ended_by_a_signal_has_no_exit_code():
    attributes = log_event(specimens.ending(), BIRTHS).attributes
    assert attributes["linnix.process.signal"] == 9
    assert "process.exit.code" not in attributes


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1), st.text(), st.lists(st.text(), max_size=3))
def test_whatever_a_process_calls_itself_stays_the_text_of_an_attribute(comm, cwd, args):
    comm, cwd, *args = (t.encode("utf-8", "replace").decode() for t in (comm, cwd, *args))
    plain, event = (
        log_event(ProcessEvent("exec", pid=1, start_ns=0, **said), BIRTHS)
        for said in (
            {"comm": "c", "cwd": "d", "args": ("e",)},
            {"comm": comm, "cwd": cwd, "args": tuple(args)},
        )
    )
    assert event.body is None
    assert event.name == plain.name
    assert set(event.attributes) <= set(plain.attributes)
    assert event.attributes["linnix.process.comm"] == comm


def test_the_body_of_a_notice_is_one_harmless_line():
    alert = specimens.alert()
    alert.message = "evil\x1b[2J\nname"
    assert log_event(alert, BIRTHS).body == "evil\\x1b[2J\\x0aname"


def test_unknown_values_are_left_out_and_never_zero():
    bare = specimens.process_sample(
        cpu_percent=None, rss_bytes=None, threads=None, fds=None, read_bytes=None, write_bytes=None
    )
    assert list(process_points(bare, BIRTHS, 2)) == []
    assert list(system_points(type(specimens.system_sample())(interval_ns=1))) == []


def test_utilization_is_of_all_cores_as_the_convention_says():
    points = {p.series.name: p.value for p in process_points(specimens.process_sample(), BIRTHS, 4)}
    assert points["process.cpu.utilization"] == pytest.approx(1.5 / 4)


def test_the_environment_and_the_configuration_have_the_last_word_on_resources(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,host.name=x")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    resource = Resources("web-1", {"service.name": "configured"}).of(HERE).attributes
    assert resource["service.name"] == "configured"
    assert resource["deployment.environment.name"] == "prod"
    assert resource["host.name"] == "x"
    assert resource["os.type"] == "linux"
    assert resource["service.instance.id"] == "run-1"


def test_records_of_another_machine_do_not_get_what_is_known_of_this_one():
    resource = Resources("here", {}).of(HERE).attributes
    assert resource["host.name"] == "web-1"
    assert not [name for name in resource if name.startswith("os.") or name == "host.id"]
