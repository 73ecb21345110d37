"""The other formats: ECS, OCSF and CloudEvents, compared with golden files."""

import json
import os
from pathlib import Path

import otlp_specimens as specimens
import pytest

from linnix_core import ProcessEvent, decode
from linnix_plugin_otlp import __version__
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.cloudevents import cloud_event
from linnix_plugin_otlp.ecs import ecs_document
from linnix_plugin_otlp.ocsf import ocsf_event

GOLDEN = Path(__file__).parent / "golden"
BIRTHS = Births({specimens.BOOT: specimens.BOOTED_NS})
MAPPERS = {
    "ecs": lambda event: ecs_document(event, BIRTHS),
    "ocsf": lambda event: ocsf_event(event, BIRTHS),
    "cloudevents": cloud_event,
}
BARE = ProcessEvent("fork", pid=1, start_ns=0)


def events():
    return [*map(specimens.event, ("seen", "fork", "exec", "oom")), specimens.ending(), BARE]


@pytest.mark.parametrize("name", MAPPERS)
def test_process_events_are_as_in_the_golden_file(name):
    text = json.dumps([MAPPERS[name](event) for event in events()], indent=1) + "\n"
    text = text.replace(f'"{__version__}"', '"VERSION"')
    if os.environ.get("LINNIX_WRITE_GOLDEN") == "1":
        (GOLDEN / f"{name}.json").write_text(text)
    assert text == (GOLDEN / f"{name}.json").read_text()


@pytest.mark.parametrize("name", ["ecs", "ocsf"])
def test_what_is_not_known_is_left_out(name):
    assert "null" not in json.dumps(MAPPERS[name](BARE))


def test_all_formats_name_a_process_by_the_same_text():
    event = specimens.event()
    ecs, ocsf, cloud = (mapper(event) for mapper in MAPPERS.values())
    assert ecs["process"]["entity_id"] == ocsf["process"]["uid"] == cloud["subject"]


def test_a_parent_is_named_as_it_is_in_its_own_events():
    child = specimens.event()
    parent = ProcessEvent("exec", child.ppid, child.parent_start_ns, boot_id=child.boot_id)
    named = ecs_document(child, BIRTHS)["process"]["parent"]["entity_id"]
    assert named == ecs_document(parent, BIRTHS)["process"]["entity_id"]


def test_a_cloud_event_carries_the_whole_record():
    incident = specimens.incident("closed")
    envelope = cloud_event(incident)
    assert envelope["type"] == "io.linnix.incident.closed.v1"
    assert envelope["subject"] == incident.id
    assert decode(json.dumps(envelope["data"])) == incident


def test_a_cloud_event_of_a_strange_host_has_a_source_that_is_a_uri():
    event = ProcessEvent("exec", pid=1, start_ns=0, host="a b/../c")
    assert cloud_event(event)["source"] == "/linnix/a%20b%2F..%2Fc"


def test_an_insight_is_about_its_incident():
    assert cloud_event(specimens.insight())["subject"] == "i-1"
