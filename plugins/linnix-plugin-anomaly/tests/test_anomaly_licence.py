"""Without a license that names it the handler is unavailable, and nothing else is."""

import pytest

from linnix_core import PluginUnavailable, hookimpl
from linnix_plugin_anomaly import AnomalyConfig, AnomalyHandler
from linnix_plugin_enterprise.issuing import development_license


class Other:
    """A handler that needs no license."""

    @hookimpl
    def linnix_handle(self, batch):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LINNIX_LICENSE_DIR", str(tmp_path / "license"))
    return tmp_path / "license"


def test_without_a_license_it_is_unavailable_and_the_run_goes_on(linnix_runtime, folder):
    agent = linnix_runtime(handlers={"anomaly": AnomalyHandler, "other": Other})
    states = {each.name: (each.state, each.reason) for each in agent.status()}
    assert states["anomaly"] == (
        "unavailable",
        "anomaly needs a license: no license is installed",
    )
    assert states["other"][0] == "running"


def test_with_a_license_it_starts(linnix_context, folder):
    development_license(folder, "anomaly")
    context = linnix_context("handlers.anomaly")
    AnomalyHandler(AnomalyConfig(), context).linnix_start(context)


def test_a_license_for_something_else_is_not_enough(linnix_context, folder):
    development_license(folder, "jira")
    context = linnix_context("handlers.anomaly")
    with pytest.raises(PluginUnavailable, match="names jira only") as caught:
        AnomalyHandler(AnomalyConfig(), context).linnix_start(context)
    assert "linnix license install" in caught.value.hint
