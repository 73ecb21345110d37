"""The command finds the folder of the agent, and tells people what happened."""

import pytest
from click.testing import CliRunner

from linnix_core import LinnixError
from linnix_core.deployments import DeploymentStore
from linnix_plugin_parrot.client import ask
from linnix_plugin_parrot.command import parrot
from linnix_plugin_parrot.deployer import PROBE
from linnix_plugin_parrot.processes import start_identity


@pytest.fixture
def store(tmp_path):
    """Where an agent with the configuration of this test looks for deployments."""
    return DeploymentStore(tmp_path / "data" / "deployments.json")


@pytest.fixture
def linnix_parrot(tmp_path):
    """Run the command as a person would; afterwards the servers of the test are gone."""
    config = tmp_path / "linnix.toml"
    config.write_text(f"[agent]\ndata_dir = '{tmp_path / 'data'}'\n")
    names = {"parrot"}

    def run(*arguments):
        names.update(arguments[index + 1] for index, a in enumerate(arguments) if a == "--name")
        return CliRunner().invoke(parrot, [*arguments, "--config", str(config)])

    yield run
    for name in names:
        run("undeploy", "--name", name)


def test_deploy_and_undeploy(linnix_parrot, store, model_file):
    deployed = linnix_parrot("deploy", str(model_file))
    (deployment,) = store.list()

    assert deployed.output == f"parrot answers at {deployment.endpoint}\n"
    assert ask(deployment.endpoint, PROBE, 60)["digest"] == deployment.digest

    assert linnix_parrot("undeploy").output == "parrot is gone\n"
    assert store.list() == []
    assert start_identity(deployment.details["pid"]) is None


def test_another_name(linnix_parrot, store, model_file):
    linnix_parrot("deploy", str(model_file), "--name", "small")
    assert [deployment.name for deployment in store.list()] == ["small"]


def test_deploying_twice_changes_nothing(linnix_parrot, store, model_file):
    linnix_parrot("deploy", str(model_file))
    first = store.list()
    linnix_parrot("deploy", str(model_file))
    assert store.list() == first


def test_what_is_not_there_cannot_be_undeployed(linnix_parrot):
    result = linnix_parrot("undeploy")
    assert isinstance(result.exception, LinnixError)
    assert "parrot" in str(result.exception)


def test_a_file_that_is_no_model_is_refused(linnix_parrot, store, tmp_path):
    file = tmp_path / "wrong.json"
    file.write_text("[]")
    result = linnix_parrot("deploy", str(file))
    assert "is no table of classes" in str(result.exception)
    assert store.list() == []
