"""Checkpoints as folders, deployers, and vLLM's server by a stand-in that can be imported."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from linnix_core import ModelSpec
from linnix_plugin_vllm import VllmDeployer, VllmDeployerConfig


@pytest.fixture
def vllm(tmp_path):
    """A folder to import the stand-in from."""
    module = tmp_path / "python" / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("vllm_stand_in.py"), module)
    return tmp_path / "python"


@pytest.fixture
def make(linnix_context, vllm):
    """Deployers; what they serve at the end of the test is ended."""
    made = []

    def deployer(*, environment=None, **keys):
        keys = {"port": 0, "python": Path(sys.executable), "start_timeout": 60.0, **keys}
        environment = {"PYTHONPATH": str(vllm), **(environment or {})}
        config = VllmDeployerConfig(environment=environment, **keys)
        made.append(VllmDeployer(config, linnix_context("deployers.vllm")))
        return made[-1]

    yield deployer
    for one in made:
        for server in one.servers.list():
            one.servers.stop(server.name)


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that looks like a checkpoint, as far as a deployer can see."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def adapter(tmp_path, checkpoint):
    """An adapter that says for which model it is."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    said = {"base_model_name_or_path": str(checkpoint), "peft_type": "LORA", "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def spec(checkpoint):
    def of(name="oracle", path=checkpoint, form="safetensors", **options):
        return ModelSpec(name, str(path), format=form, options={"model_id": "m1", **options})

    return of
