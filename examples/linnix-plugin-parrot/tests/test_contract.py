"""Both plugins do what every plugin of their kind must do."""

from functools import partial

import pytest

from linnix_core import ModelSpec
from linnix_core.testing import DeployerContract, ReasonerContract
from linnix_plugin_parrot.deployer import ParrotDeployer
from linnix_plugin_parrot.reasoner import ParrotReasoner


class TestParrotDeployer(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return ParrotDeployer

    @pytest.fixture
    def spec(self, model_file):
        return ModelSpec(name="parrot", path=str(model_file), format="parrot")


class TestParrotReasoner(ReasonerContract):
    @pytest.fixture
    def plugin_class(self):
        return ParrotReasoner

    @pytest.fixture
    def linnix_context(self, linnix_context, model_file):
        """Contexts that know a deployment, with a real server behind it."""
        deployer = ParrotDeployer(None, linnix_context("deployers.parrot"))
        spec = ModelSpec(name="parrot", path=str(model_file), format="parrot")
        deployment = deployer.linnix_deploy(spec)
        yield partial(linnix_context, deployment={"parrot": deployment}.get)
        deployer.linnix_undeploy(deployment)
