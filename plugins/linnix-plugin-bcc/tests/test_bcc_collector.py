"""What the collector says of itself, and what it does where BCC is not."""

import os
import time
from importlib.metadata import entry_points

import attrs
import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_bcc import BccCollector, BccConfig
from linnix_plugin_bcc.collector import _limits
from linnix_plugin_bcc.host import Host


def test_it_is_found_by_its_name():
    (entry_point,) = entry_points(group="linnix.collectors", name="bcc")
    assert entry_point.load() is BccCollector


def test_every_key_explains_itself():
    assert all(field.metadata["help"] for field in attrs.fields(BccConfig))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample_interval": 0.0}, "sample_interval must be longer than 0 s"),
        ({"ring_size": 3_000_000}, "ring_size must be a power of two"),
        ({"ring_size": 1024}, "ring_size must be a power of two"),
    ],
)
def test_a_wrong_value_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        BccConfig(**options)


def test_where_something_is_missing_it_is_unavailable(linnix_context, tmp_path):
    host = Host(tmp_path, "4.19.0")
    made = BccCollector(BccConfig(), linnix_context("collectors.bcc"), host=host)
    with pytest.raises(PluginUnavailable, match=r"4\.19\.0"):
        made.linnix_start()
    made.linnix_stop(time.monotonic() + 1)


@pytest.mark.parametrize("uid", [0, 1000])
def test_it_says_what_needs_root(linnix_context, monkeypatch, uid):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    limits = BccCollector(BccConfig(), linnix_context("collectors.bcc")).linnix_health().limits
    assert any("without root" in limit for limit in limits) == (uid != 0)


def test_limits_name_what_the_headers_do_not_tell(tmp_path):
    host = Host(tmp_path, "6.1.0")
    assert not any("exit codes" in limit for limit in _limits(host, costs=True))
    limits = _limits(host, costs=False)
    assert any("headers are of an unknown version, and the kernel is 6.1.0" in x for x in limits)
    assert any("first thread ends" in limit for limit in limits)
    assert any("interpreter" in limit for limit in limits)
