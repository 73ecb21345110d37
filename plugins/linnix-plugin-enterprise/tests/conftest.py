"""A seller with a key of its own, a folder that trusts it, and a clock that tests set."""

import logging
from datetime import UTC, datetime

import pytest

from linnix_plugin_enterprise import keys, machine
from linnix_plugin_enterprise.issuing import new_key, new_license, signed_license

HERE = "0" * 32
BEGAN = datetime(2027, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that a test sets, in days after the license begins."""

    def __init__(self):
        self.day = 1.0

    @property
    def now_s(self):
        return BEGAN.timestamp() + self.day * 86400

    def time_ns(self):
        return round(self.now_s * 1e9)

    def monotonic(self):
        return self.day * 86400


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def key(tmp_path):
    return new_key(tmp_path / "seller")


@pytest.fixture
def folder(tmp_path, key, monkeypatch):
    """The folder of the license, which trusts the seller's key and holds no license."""
    folder = tmp_path / "license"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "linnix.pem").write_bytes((tmp_path / "seller" / "linnix.pem").read_bytes())
    (tmp_path / "machine-id").write_text("a" * 32 + "\n")
    monkeypatch.setenv("LINNIX_LICENSE_DIR", str(folder))
    monkeypatch.setattr(machine, "MACHINE_ID_FILES", (tmp_path / "machine-id",))
    monkeypatch.setattr(keys, "BUILT_IN", tmp_path / "release")
    return folder


@pytest.fixture
def sold(folder, key):
    """Write a license of 100 days into the folder, or elsewhere, and return it."""

    def sell(file=None, signed_with=key, **parts):
        options = {"begins": BEGAN, "days": 100, "issued": BEGAN.isoformat(), "hosts": 3} | parts
        made = new_license("ACME", options.pop("capabilities", ("anomaly",)), **options)
        (file or folder / "license.json").write_text(signed_license(made, signed_with))
        return made

    return sell


@pytest.fixture
def context(linnix_context, clock, folder):
    logging.getLogger("linnix.handlers.anomaly").setLevel("WARNING")
    return linnix_context("handlers.anomaly", clock=clock)
