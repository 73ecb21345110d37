"""The vocabulary: what every record has in common, keys of processes, batches, root names.

Architecture, section 5.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import get_args

import attrs
import pytest

import linnix_core
from linnix_core import (
    CLASSES,
    SEVERITIES,
    Alert,
    Answer,
    Batch,
    CgroupSample,
    Deployment,
    Evidence,
    Fact,
    Health,
    Incident,
    Insight,
    Loss,
    Metric,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Query,
    Result,
    Subject,
    SystemSample,
)
from linnix_core import records as module
from linnix_core.records import IncidentClass, Record, Severity

STAMPED = (
    ProcessEvent,
    ProcessSample,
    CgroupSample,
    SystemSample,
    Loss,
    Alert,
    Incident,
    Insight,
)


@pytest.mark.parametrize("cls", STAMPED)
def test_every_record_can_be_stamped_with_where_and_when_it_was_made(cls):
    fields = attrs.fields_dict(cls)
    for name, nothing_yet in {
        "ts_ns": 0,
        "seq": 0,
        "host": "",
        "run_id": "",
        "boot_id": "",
    }.items():
        assert fields[name].default == nothing_yet


@pytest.mark.parametrize("cls", STAMPED)
def test_the_type_of_a_record_is_not_for_its_maker_to_choose(cls):
    with pytest.raises(TypeError, match="type"):
        cls(type="event")


@pytest.mark.parametrize("cls", STAMPED)
def test_a_record_has_its_attributes_and_no_others(cls):
    record = cls(*(None for field in attrs.fields(cls) if field.default is attrs.NOTHING))
    with pytest.raises(AttributeError):
        record.colour = "green"


def test_batches_carry_five_types_and_notices_are_none_of_them():
    assert set(get_args(Record)) == {*STAMPED} - {Alert, Incident, Insight}


def test_classes_and_severities_are_those_of_the_types_in_their_order():
    assert get_args(IncidentClass) == CLASSES
    assert get_args(Severity) == SEVERITIES == ("info", "low", "medium", "high", "critical")


def test_what_is_not_known_is_none_and_not_zero():
    event = ProcessEvent("exit", 7, 0)
    unknown = ("ppid", "uid", "gid", "exe", "args", "cwd", "exit_code", "cpu_ns", "max_rss_bytes")
    assert {getattr(event, name) for name in unknown} == {None}
    sample = ProcessSample(7, 0, 1)
    unknown = ("cpu_percent", "rss_bytes", "threads", "fds", "state", "read_bytes")
    assert {getattr(sample, name) for name in unknown} == {None}


def test_a_key_tells_processes_of_one_pid_apart():
    first = ProcessEvent("fork", 7, 10, boot_id="b").key
    again = ProcessEvent("fork", 7, 20, boot_id="b").key
    assert first != again
    assert first == ProcessSample(7, 10, 1, boot_id="b").key == ("b", 7, 10)
    assert hash(first) == hash(("b", 7, 10))


def test_a_parent_is_named_by_its_key_or_not_at_all():
    event = ProcessEvent("fork", 7, 20, ppid=1, parent_start_ns=10, boot_id="b")
    assert event.parent_key == ProcessKey("b", 1, 10)
    assert ProcessEvent("fork", 7, 20, ppid=1).parent_key is None
    assert ProcessEvent("fork", 7, 20, parent_start_ns=10).parent_key is None


@pytest.mark.parametrize(
    "value",
    [
        Evidence("forks", 1, "forks"),
        Subject(),
        Fact("forks", 1, "forks"),
        Answer("normal", 50),
        Deployment("m", "d", "m", "http://127.0.0.1"),
        Health(),
        Metric("m", 1),
        Query(),
        Result(()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_handed_around_outside_of_batches_cannot_be_changed(value):
    name = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, None)


def test_a_batch_is_a_sequence_that_nobody_can_write_to():
    events = [ProcessEvent("fork", pid, 0) for pid in range(3)]
    batch = Batch(events)
    assert len(batch) == 3
    assert list(batch) == events
    assert batch[1] is events[1]
    assert list(batch[1:]) == events[1:]
    assert events[2] in batch
    assert repr(batch) == "<Batch of 3>"
    with pytest.raises(TypeError):
        batch[0] = events[1]
    with pytest.raises(AttributeError):
        batch.append(events[0])


def test_alerts_do_not_share_what_they_carry():
    first, second = Alert("a", "low", "m"), Alert("b", "low", "m")
    assert first.labels is second.labels is None
    assert Deployment("a", "d", "m", "e").details is not Deployment("b", "d", "m", "e").details


def test_every_public_name_of_the_package_leads_to_what_its_module_holds():
    for name in linnix_core.__all__:
        assert getattr(linnix_core, name) is not None
    assert set(linnix_core.__all__) <= set(dir(linnix_core))
    for name in ("ProcessEvent", "Alert", "ReasonRequest"):
        assert getattr(linnix_core, name) is getattr(module, name)


def test_every_record_is_public():
    assert set(module.__all__) <= set(linnix_core.__all__)


def test_a_name_that_is_not_there_says_so():
    with pytest.raises(AttributeError, match=r"linnix_core.*Nothing"):
        _ = linnix_core.Nothing


@pytest.mark.parametrize(
    "name",
    sorted({found.name for found in pkgutil.iter_modules(linnix_core.__path__)} - {"__main__"}),
)
def test_what_a_module_lists_as_public_is_there(name):
    found = importlib.import_module(f"linnix_core.{name}")
    assert found.__doc__
    for public in getattr(found, "__all__", ()):
        assert hasattr(found, public)
