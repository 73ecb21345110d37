"""Conversion is somebody else's work; that it counts only when it holds is settled here.

The converter is a stand-in distribution with the interface that linnix-plugin-gguf offers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

CONVERTER = """
import json, os, struct
from pathlib import Path
from linnix_core import LinnixError
from linnix_plugin_models import Conversion

def convert(request):
    log = Path(os.environ["CONVERTER_LOG"])
    log.write_text(json.dumps({
        "model_id": request.model_id, "source": str(request.source),
        "quantization": request.quantization, "base_model": request.base_model,
        "base": str(request.base), "llama_cpp_dir": str(request.llama_cpp_dir),
    }))
    mode = os.environ.get("CONVERTER_MODE", "good")
    (request.work / "f16.gguf").write_bytes(b"intermediate")
    request.progress("converting", 1, 2)
    if mode == "fail":
        raise LinnixError("llama-quantize is missing", hint="install it")
    if mode == "crash":
        os.kill(os.getpid(), 9)
    if mode == "nothing":
        return Conversion(quantization=request.quantization)
    source = Path(os.environ["CONVERTER_GGUF"]).read_bytes()
    request.target.write_bytes(source[:-8] if mode == "damaged" else source)
    return Conversion(
        quantization="F16" if mode == "lies" else request.quantization,
        details={"compared_with": "the source", "logits": {"error": 0.125}},
    )
"""


@pytest.fixture
def converter(linnix_distribution, monkeypatch, tmp_path, weights):
    linnix_distribution(
        "linnix-plugin-fakegguf",
        entry_points={"linnix_plugin_models.converters": {"gguf": "fakegguf:convert"}},
        modules={"fakegguf.py": CONVERTER},
    )
    made = tmp_path / "made.gguf"
    made.write_bytes(weights.gguf(15))
    monkeypatch.setenv("CONVERTER_GGUF", str(made))
    monkeypatch.setenv("CONVERTER_LOG", str(tmp_path / "log.json"))

    def mode(name):
        monkeypatch.setenv("CONVERTER_MODE", name)

    mode.log = tmp_path / "log.json"
    mode.made = made
    return mode


@pytest.fixture
def model(linnix, checkpoint):
    path = checkpoint()
    linnix("training", "register-model", path)
    return path


def test_a_conversion_is_registered_with_its_file(linnix, converter, model, home, sync_toml):
    sync_toml('[deployment]\nllama_cpp_dir = "/opt/llama.cpp"\n')
    made = linnix("models", "convert", model.name, "GGUF", "--quant", "q4_k_m", "--json").json
    folder = home / ".local/share/linnix/models" / f"{model.name}-gguf"
    assert made["path"] == str(folder / f"{model.name}-Q4_K_M.gguf")
    assert (made["format"], made["quantization"]) == ("gguf", "Q4_K_M")
    known = linnix("models", "info", model.name, "--json").json
    assert known["formats"] == ["safetensors", "gguf"]
    assert known["lineage"]["converted_from"] == str(model)
    assert [p.name for p in folder.iterdir()] == [f"{model.name}-Q4_K_M.gguf"]
    assert json.loads(converter.log.read_text()) == {
        "model_id": model.name, "source": str(model), "quantization": "Q4_K_M",
        "base_model": "Qwen/Qwen2.5-Coder-1.5B", "base": "None", "llama_cpp_dir": "/opt/llama.cpp",
    }  # fmt: skip


def test_how_close_it_is_to_its_source_stays_known(linnix, converter, model):
    linnix("models", "convert", model.name, "gguf")
    linnix("models", "register", model.name, "--id", model.name, "--notes", "later")
    *_, made = linnix("models", "info", model.name, "--json").json["artifacts"]
    assert made["details"] == {"compared_with": "the source", "logits": {"error": 0.125}}
    shown = linnix("models", "info", model.name).out
    assert re.search(r"gguf Q4_K_M: compared with +the source", shown)
    assert re.search(r"gguf Q4_K_M: logits +error=0.125", shown)


def test_what_is_there_is_not_made_again_unless_asked(linnix, converter, model, weights):
    linnix("models", "convert", model.name, "gguf")
    converter.log.unlink()
    assert linnix("models", "convert", model.name, "gguf").code == 0
    assert not converter.log.exists()
    assert linnix("models", "convert", model.name, "gguf", "--again").code == 0
    assert converter.log.exists()
    converter.made.write_bytes(weights.gguf(7))
    # hafs: --quant is ignored once there is any GGUF
    made = linnix("models", "convert", model.name, "gguf", "--quantization", "Q8_0", "--json").json
    assert made["quantization"] == "Q8_0"
    assert linnix("models", "info", model.name, "--json").json["formats"] == ["safetensors", "gguf"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("fail", "llama-quantize is missing"),  # hafs: a silent F16
        ("lies", "Q4_K_M was asked for"),
        ("damaged", "could be used"),
        ("nothing", "made nothing"),
    ],
)
def test_a_conversion_that_fails_registers_nothing_and_leaves_nothing(
    linnix, converter, model, home, mode, said
):
    converter(mode)
    failed = linnix("models", "convert", model.name, "gguf")
    assert failed.code == 1
    assert said in failed.err
    assert linnix("models", "info", model.name, "--json").json["formats"] == ["safetensors"]
    folder = home / ".local/share/linnix/models" / f"{model.name}-gguf"
    assert list(folder.rglob("*")) == []
    converter("good")
    assert linnix("models", "convert", model.name, "gguf").code == 0


def test_killed_in_the_middle_a_second_run_finishes(linnix, converter, model, home):
    converter("crash")
    path = os.pathsep.join(filter(None, sys.path))
    killed = subprocess.run(
        [sys.executable, "-m", "linnix_core", "models", "convert", model.name, "gguf"],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert killed.returncode == -9
    assert linnix("models", "info", model.name, "--json").json["formats"] == ["safetensors"]
    folder = home / ".local/share/linnix/models" / f"{model.name}-gguf"
    assert [p.name for p in folder.glob("[!.]*")] == []  # nothing that looks like a model
    converter("good")
    assert linnix("models", "convert", model.name, "gguf").code == 0
    assert [p.name for p in folder.iterdir()] == [f"{model.name}-Q4_K_M.gguf"]


def test_another_quantization_than_asked_for_is_an_error(linnix, converter, model):
    failed = linnix("models", "convert", model.name, "gguf", "-q", "Q8_0")
    assert "Q8_0 was asked for, and the converter made Q4_K_M" in failed.err


def test_a_quantization_that_is_none_is_met_with_the_closest(linnix, converter, model):
    failed = linnix("models", "convert", model.name, "gguf", "-q", "Q4_KM")
    assert "no quantization 'Q4_KM'" in failed.err
    assert failed.error.hint == "did you mean Q4_K_M?"
    assert not converter.log.exists()


def test_a_base_that_is_registered_is_handed_over(linnix, converter, checkpoint, tmp_path):
    base = checkpoint(tmp_path / "base")
    linnix("training", "register-model", base, "--id", "qwen")
    adapter = checkpoint(tmp_path / "adapter")
    linnix("models", "register", adapter, "--adapter-of", "qwen", "--base", "Qwen/Q")
    assert linnix("models", "convert", "adapter", "gguf").code == 0
    assert json.loads(converter.log.read_text())["base"] == str(base)


def test_without_a_converter_the_distribution_to_install_is_named(linnix, model, monkeypatch):
    monkeypatch.setattr("linnix_plugin_models.conversion.converters", dict)
    failed = linnix("models", "convert", model.name, "gguf")
    assert "nothing is installed that makes gguf" in failed.err
    assert failed.error.hint == "pip install linnix-plugin-gguf"
    other = linnix("models", "convert", model.name, "onnx")
    assert "converters are there for" in other.error.hint


def test_a_model_that_is_not_here_has_to_be_pulled_first(linnix, converter):
    linnix("models", "register", "D:/m/x", "--base", "b", "--role", "asm")
    failed = linnix("models", "convert", "x", "gguf")
    assert failed.error.hint == "linnix models pull x"
