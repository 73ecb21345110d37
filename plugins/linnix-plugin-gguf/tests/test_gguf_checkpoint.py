"""Checkpoints are read as they are written, piece by piece, or refused with a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from linnix_core import LinnixError
from linnix_plugin_gguf import checkpoint as reading
from linnix_plugin_gguf.checkpoint import Checkpoint, open_safetensors, pieces
from linnix_plugin_gguf.reading import read_model
from linnix_plugin_gguf.testing import write_safetensors

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "x.safetensors"


@given(npst.arrays(np.float32, npst.array_shapes(max_dims=2, max_side=7), elements=FLOATS))
def test_what_was_written_as_f32_is_read_again(place, array):
    write_safetensors(place, {"x": array}, "F32")
    assert np.array_equal(open_safetensors(place)["x"].read(slice(None)), array)


@given(st.lists(FLOATS.filter(lambda x: abs(x) < 1e38), min_size=1, max_size=9))
def test_a_bf16_is_the_nearest_that_seven_bits_can_say(place, values):
    array = np.array(values, dtype=np.float32)
    write_safetensors(place, {"x": array}, "BF16")
    read = open_safetensors(place)["x"].read(slice(None))
    normal = np.abs(array) > 1e-37
    assert np.all(np.abs(read - array)[normal] <= np.abs(array)[normal] / 256)
    assert np.all(read.view(np.uint32) & 0xFFFF == 0)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_type_keeps_what_it_can_hold(place, dtype):
    exact = np.array([[0.0, -1.0, 0.5], [2.0, -96.0, 0.15625]], dtype=np.float32)
    write_safetensors(place, {"x": exact}, dtype)
    tensor = open_safetensors(place)["x"]
    assert (tensor.dtype, tensor.shape) == (dtype, (2, 3))
    assert np.array_equal(tensor.read(slice(1, 2)), exact[1:])


def test_no_more_than_a_piece_is_read_at_once(place, monkeypatch):
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    write_safetensors(place, {"x": array}, "F32")
    monkeypatch.setattr(reading, "PIECE_BYTES", 50)  # four rows of three
    tensor = open_safetensors(place)["x"]
    assert [(begin, len(rows)) for begin, rows in pieces(tensor)] == [
        (0, 4), (4, 4), (8, 4), (12, 4), (16, 4),
    ]  # fmt: skip
    order = np.arange(20)[::-1]
    assert np.array_equal(np.concatenate([r for _, r in pieces(tensor, order)]), array[::-1])


def test_shards_are_one_checkpoint(checkpoint):
    whole, parts = checkpoint(name="whole"), checkpoint(name="parts", shards=3)
    assert len(list(parts.glob("*.safetensors"))) == 3
    a, b = Checkpoint(whole), Checkpoint(parts)
    assert set(a.names()) == set(b.names())
    for name in a.names():
        assert np.array_equal(a.tensor(name).read(slice(None)), b.tensor(name).read(slice(None)))


def test_one_file_is_read_with_the_config_beside_it(checkpoint):
    path = checkpoint()
    assert Checkpoint(path / "model.safetensors").names() == Checkpoint(path).names()


def refused(path, base=None):
    with pytest.raises(LinnixError) as caught:
        read_model(path, base)
    return f"{caught.value} | {caught.value.hint}"


def test_a_shard_that_is_missing_is_named(checkpoint):
    path = checkpoint(shards=2)
    (path / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors, of 2 files" in refused(path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", 7])
def test_an_index_leads_nowhere_else(checkpoint, name):
    path = checkpoint(
        shards=2,
        edit={"model.safetensors.index.json": lambda t: t["weight_map"].update({"x": name})},
    )
    assert "does not say which files there are" in refused(path)


def test_a_tensor_that_is_missing_is_named(checkpoint):
    path = checkpoint(edit={"config.json": lambda tree: tree.update(num_hidden_layers=3)})
    assert "lacks the tensor model.layers.2.input_layernorm.weight" in refused(path)


def test_a_tensor_too_many_is_named(checkpoint):
    path = checkpoint(edit={"config.json": lambda tree: tree.update(num_hidden_layers=1)})
    assert "model.layers.1.input_layernorm.weight, which no llama model has" in refused(path)


def test_numbers_that_do_not_fit_the_weights_are_refused(checkpoint):
    path = checkpoint(edit={"config.json": lambda tree: tree.update(intermediate_size=100)})
    assert "mlp.gate_proj.weight has the shape (512, 256)" in refused(path)


def test_weights_of_another_type_are_refused(checkpoint):
    path = checkpoint()
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"dtype": "BF16"', b'"dtype": "I16" ', 1))
    assert "is stored as I16" in refused(path)


def test_a_damaged_file_is_refused(checkpoint):
    path = checkpoint()
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "is no safetensors file that could be used" in refused(path)


def test_tensors_of_nothing_are_refused(checkpoint):
    path = checkpoint()
    write_safetensors(path / "model.safetensors", {"x": np.zeros((0, 3), "f4")}, "F32")
    assert "hold nothing" in refused(path)
    write_safetensors(path / "model.safetensors", {"x": np.ones((), "f4")}, "F32")
    assert "lacks the tensor" in refused(path)


def test_a_vector_without_dimensions_is_refused(checkpoint):
    path = checkpoint()
    tensors = Checkpoint(path)
    arrays = {name: tensors.tensor(name).read(slice(None)) for name in tensors.names()}
    arrays["model.norm.weight"] = np.ones((), dtype=np.float32)
    write_safetensors(path / "model.safetensors", arrays, "F32")
    assert "model.norm.weight has the shape ()" in refused(path)


def test_pickles_are_not_read(checkpoint):
    path = checkpoint()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    said = refused(path)
    assert "there is no model.safetensors" in said
    assert "pickles are not read" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no config.json"),
        ("{", "config.json is no JSON"),
        ("[" * 100_000, "config.json is no JSON"),
        ("[]", "config.json holds no table"),
    ],
)
def test_without_a_usable_config_it_is_no_checkpoint(checkpoint, content, said):
    path = checkpoint()
    if content is None:
        (path / "config.json").unlink()
    else:
        (path / "config.json").write_text(content)
    assert said in refused(path)


def test_without_a_tokenizer_it_is_no_checkpoint(checkpoint):
    path = checkpoint()
    (path / "tokenizer.json").unlink()
    assert "neither tokenizer.json nor tokenizer.model" in refused(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", 0, "no usable hidden_size"),
        ("hidden_size", "256", "no usable hidden_size"),
        ("num_key_value_heads", 3, "impossible numbers"),
        ("num_hidden_layers", None, "no usable num_hidden_layers"),
        ("rope_theta", "high", "no usable rope_theta"),
        ("rope_theta", 1, "impossible numbers for rotary embeddings"),
        ("rope_scaling", {"type": "llama3", "low_freq_factor": 4}, "impossible numbers for rotary"),
        ("head_dim", 2**30, "impossible numbers"),
        ("head_dim", 2**15, "self_attn.q_proj.weight has the shape (256, 256)"),
        ("num_attention_heads", 2**30, "no usable head_dim"),
        ("rms_norm_eps", True, "no usable rms_norm_eps"),
        ("rope_scaling", {"type": "linear"}, "no usable factor for linear rope scaling"),
        ("rope_scaling", [1], "rope_scaling of config.json is no table"),
    ],
)
def test_impossible_numbers_are_named(checkpoint, key, value, said):
    path = checkpoint(edit={"config.json": lambda tree: tree.update({key: value})})
    assert said in refused(path)


def test_a_name_of_a_tensor_is_harmless_where_it_is_shown(checkpoint):
    path = checkpoint()
    file = path / "model.safetensors"
    bad = json.dumps("\x1b[31mm.norm.weight").encode()
    name = b'"model.norm.weight"'
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little") + len(bad) - len(name)
    file.write_bytes(length.to_bytes(8, "little") + data[8:].replace(name, bad, 1))
    assert "\x1b" not in refused(path)
