"""A LoRA adapter is its base with a product of two small matrices added, as PEFT has it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from linnix_core import LinnixError
from linnix_plugin_gguf.checkpoint import Checkpoint, open_safetensors
from linnix_plugin_gguf.reading import read_model
from linnix_plugin_gguf.testing import tiny_adapter, write_safetensors

Q = "model.layers.0.self_attn.q_proj.weight"
K = "model.layers.0.self_attn.k_proj.weight"
STEM = "base_model.model."


def whole(weights, name):
    return weights.tensor(name).read(slice(None))


def product(adapter, name, side_b="lora_B.weight", side_a="lora_A.weight"):
    stored = open_safetensors(adapter / "adapter_model.safetensors")
    stem = STEM + name.removesuffix("weight")
    return stored[stem + side_b].read(slice(None)) @ stored[stem + side_a].read(slice(None))


@pytest.fixture
def adapter(llama, tmp_path):
    def make(tensors=None, **config):
        path = tiny_adapter(tmp_path / "adapter", llama, **config)
        if tensors is not None:
            write_safetensors(path / "adapter_model.safetensors", tensors, "F32")
        return path

    return make


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),  # alpha 16, rank 8
        ({"use_rslora": True}, 16 / np.sqrt(8)),
        ({"alpha_pattern": {"q_proj": 4}}, 0.5),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 8}}, 1.0),
        ({"alpha_pattern": {"proj": 4}}, 2.0),  # no part of a path
    ],
)
def test_the_change_is_scaled_as_peft_scales_it(llama, adapter, config, scale):
    path = adapter(**config)
    base = Checkpoint(llama)
    merged = read_model(path).weights
    wanted = whole(base, Q) + np.float32(scale) * product(path, Q)
    assert np.allclose(whole(merged, Q), wanted, atol=1e-6)
    assert np.array_equal(whole(merged, K), whole(base, K))
    assert np.allclose(merged.tensor(Q).read(np.array([7, 3])), wanted[[7, 3]], atol=1e-6)


def test_what_was_trained_whole_takes_the_place_of_the_base(llama, adapter):
    head = np.full((640, 256), 0.25, dtype=np.float32)
    merged = read_model(adapter({f"{STEM}lm_head.weight": head})).weights
    assert np.array_equal(whole(merged, "lm_head.weight"), head)


def test_an_embedding_is_merged_the_other_way_round(llama, adapter):
    random = np.random.default_rng(3)
    a = random.standard_normal((2, 640)).astype(np.float32)
    b = random.standard_normal((256, 2)).astype(np.float32)
    stem = f"{STEM}model.embed_tokens.lora_embedding_"
    merged = read_model(adapter({f"{stem}A": a, f"{stem}B": b}, rank=2, alpha=2)).weights
    name = "model.embed_tokens.weight"
    assert np.allclose(whole(merged, name), whole(Checkpoint(llama), name) + (b @ a).T, atol=1e-5)


def test_a_tokenizer_beside_the_adapter_goes_before_that_of_the_base(llama, adapter):
    path = adapter()
    assert read_model(path).tokenizer == llama
    (path / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes())
    assert read_model(path).tokenizer == path


def test_the_base_that_was_found_goes_before_the_one_that_is_named(llama, adapter):
    path = adapter(base_name="somebody/model")
    assert read_model(path, llama).folder == llama


def refused(path, base=None):
    def read():
        weights = read_model(path, base).weights
        return [weights.tensor(name) for name in weights.names()]

    with pytest.raises(LinnixError) as caught:
        read()
    return f"{caught.value} | {caught.value.hint}"


def test_a_base_that_is_not_here_is_named_with_the_way_to_get_it(adapter):
    said = refused(adapter(base_name="Qwen/Qwen2.5-0.5B"))
    assert "Qwen/Qwen2.5-0.5B, is not on this machine" in said
    assert "linnix models pull hf:Qwen/Qwen2.5-0.5B" in said
    assert "--adapter-of" in said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "the adapter is IA3"),
        ({"use_dora": True}, "uses use_dora"),
        ({"fan_in_fan_out": True}, "uses fan_in_fan_out"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "holds more than names"),
    ],
)
def test_more_than_lora_is_refused(adapter, config, said):
    assert said in refused(adapter(**config))


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"])
def test_an_adapter_that_changed_its_base_when_it_began_is_refused(adapter, begun):
    said = refused(adapter(init_lora_weights=begun))
    assert f"was begun as {begun}, which changes its base" in said
    assert "merge it with PEFT" in said


@pytest.mark.parametrize("begun", [True, False, "gaussian", "eva", "orthogonal"])
def test_an_adapter_that_left_its_base_alone_when_it_began_is_merged(llama, adapter, begun):
    merged = read_model(adapter(init_lora_weights=begun)).weights
    assert not np.array_equal(whole(merged, Q), whole(Checkpoint(llama), Q))


def test_another_base_is_found_out(adapter, checkpoint):
    path = adapter()
    assert "the adapter does not fit its base" in refused(path, checkpoint(hidden=512))
    deeper = adapter({f"{STEM}model.layers.9.mlp.up_proj.lora_A.weight": np.ones((1, 1), "f4")})
    assert "which its base does not have" in refused(deeper)


def test_half_an_adapter_is_refused(adapter):
    stem = f"{STEM}{Q.removesuffix('.weight')}"
    path = adapter({f"{stem}.lora_A.weight": np.ones((8, 256), dtype=np.float32)})
    assert "only one half for model.layers.0.self_attn.q_proj" in refused(path)


def test_an_adapter_over_an_adapter_is_refused(adapter, tmp_path, llama):
    first = adapter()
    second = tiny_adapter(tmp_path / "second", llama)
    assert "is an adapter itself" in refused(second, first)


def test_an_adapter_without_safetensors_is_refused(adapter):
    path = adapter()
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    assert "pickles (adapter_model.bin) are not read" in refused(path)
    assert json.loads((path / "adapter_config.json").read_text())["peft_type"] == "LORA"
