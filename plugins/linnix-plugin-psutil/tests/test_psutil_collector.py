"""What the collector says of itself, and that the agent can find and build it."""

import os
from importlib.metadata import entry_points

import attrs
import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_psutil import PsutilCollector, PsutilConfig
from linnix_plugin_psutil.linux import LinuxReader


def test_it_is_found_by_its_name():
    (entry_point,) = entry_points(group="linnix.collectors", name="psutil")
    assert entry_point.load() is PsutilCollector


def test_every_key_explains_itself():
    assert all(field.metadata["help"] for field in attrs.fields(PsutilConfig))


def test_it_says_what_polling_cannot_see(make_collector):
    health = make_collector().linnix_health()
    assert health.status == "ok"
    assert "processes that live shorter than the polling interval are not seen" in health.limits
    assert any(limit.startswith("exit codes") for limit in health.limits)


@pytest.mark.parametrize("uid", [0, 1000])
def test_it_says_what_needs_root(make_collector, monkeypatch, uid):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    limits = make_collector().linnix_health().limits
    assert any("without root" in limit for limit in limits) == (uid != 0)


def test_it_says_when_others_are_hidden(make_collector, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("linnix_plugin_psutil.collector._LINUX", True)
    for hidden in True, False:
        monkeypatch.setattr(os.path, "exists", lambda path, hidden=hidden: not hidden)
        limits = make_collector().linnix_health().limits
        assert any("hidepid" in limit for limit in limits) == hidden


@pytest.mark.parametrize(("folder", "why"), [("proc", "No such file"), ("", "there are none")])
def test_without_a_list_of_processes_it_is_unavailable(make_collector, tmp_path, folder, why):
    """Who asks would at least find itself."""
    collector = make_collector(LinuxReader(str(tmp_path / folder)))
    with pytest.raises(PluginUnavailable, match=f"cannot be listed: .*{why}") as caught:
        collector.linnix_start()
    assert "/proc" in caught.value.hint


def test_with_one_it_starts(make_collector):
    make_collector().linnix_start()


def test_a_list_that_fails_later_changes_nothing(make_collector, monkeypatch):
    collector = make_collector(LinuxReader(), system=False)
    collector.linnix_poll()
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: os.stat(f"{path}/none"))
        with pytest.raises(FileNotFoundError):
            collector.linnix_poll()
    records = collector.linnix_poll()
    assert not [r for r in records if r.type == "event" and r.pid == os.getpid()]
