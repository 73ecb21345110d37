"""Every test here has a license of its own; `test_anomaly_licence.py` takes it away."""

import pytest

from linnix_plugin_anomaly.licence import CAPABILITY
from linnix_plugin_enterprise.issuing import development_license


@pytest.fixture(autouse=True)
def _licensed(tmp_path_factory, monkeypatch):
    # One for each: tests set the clock, and a license remembers the latest time.
    folder = tmp_path_factory.mktemp("license")
    development_license(folder, CAPABILITY)
    monkeypatch.setenv("LINNIX_LICENSE_DIR", str(folder))
