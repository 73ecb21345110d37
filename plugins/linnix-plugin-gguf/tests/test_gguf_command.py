"""``linnix models convert`` finds this converter, and registers what it made and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest
from click.testing import CliRunner

from linnix_core import LinnixError
from linnix_plugin_gguf import tools
from linnix_plugin_gguf.testing import tiny_adapter
from linnix_plugin_models.models_command import command

pytestmark = [
    pytest.mark.usefixtures("in_this_process"),
    pytest.mark.skipif(
        importlib.util.find_spec("llama_cpp") is None, reason="needs llama-cpp-python"
    ),
]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Run ``linnix models …`` in a home of its own."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "LINNIX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*words):
        result = CliRunner().invoke(command, [*map(str, words), "--json"])
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    run.folder = tmp_path / "home" / ".local" / "share" / "linnix" / "models"
    return run


def test_an_adapter_is_merged_into_the_base_that_is_registered(models, llama, tmp_path):
    adapter = tiny_adapter(tmp_path / "adapter", llama, base_name="somebody/tiny")
    models("register", llama, "--id", "base")
    models("register", adapter, "--id", "oracle", "--adapter-of", "base")
    made = models("convert", "oracle", "gguf", "--quant", "q8_0")
    assert made["path"] == str(models.folder / "oracle-gguf" / "oracle-Q8_0.gguf")
    assert (made["format"], made["quantization"]) == ("gguf", "Q8_0")
    assert models("info", "oracle")["formats"] == ["safetensors", "gguf"]
    assert [path.name for path in (models.folder / "oracle-gguf").iterdir()] == ["oracle-Q8_0.gguf"]


def test_what_failed_is_not_registered_and_leaves_nothing(models, llama, monkeypatch):
    def fails(*_):
        raise LinnixError("llama.cpp cannot quantize it")

    monkeypatch.setattr(tools.Quantizer, "quantize", fails)
    models("register", llama, "--id", "oracle")
    with pytest.raises(LinnixError, match="cannot quantize"):
        models("convert", "oracle", "gguf")
    assert models("info", "oracle")["formats"] == ["safetensors"]
    assert list(models.folder.rglob("*.gguf")) == []
