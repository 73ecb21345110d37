"""What a file of weights claims is believed only if the file can hold it."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_plugin_models import check_weights
from linnix_plugin_models.formats import (
    MAX_SAFETENSORS_HEADER,
    UnsafeWeights,
    Weights,
    format_of,
    looks_like_pickle,
)


@pytest.fixture
def check(tmp_path):
    def look(suffix, content):
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(content)
        return check_weights(path)

    return look


def test_a_good_safetensors_file_holds(check, weights):
    assert check("safetensors", weights.safetensors()) == Weights("safetensors", 1)


def test_a_good_gguf_file_tells_what_it_is(check, weights):
    name = weights.text("general.name") + struct.pack("<I", 8) + weights.text("Tiny")
    template = weights.text("tokenizer.chat_template") + struct.pack("<I", 8) + weights.text("{}")
    words = (
        weights.text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, 2)
        + weights.text("a")
        + weights.text("b")
        + weights.text("tokenizer.ggml.scores")
        + struct.pack("<IIQ2f", 9, 6, 2, 1, 2)
    )
    found = check("gguf", weights.gguf(15, "qwen2", more=name + template + words, count=4))
    assert found == Weights(
        "gguf", 1, architecture="qwen2", quantization="Q4_K_M", name="Tiny", has_chat_template=True
    )


def test_other_files_are_none_of_its_business(check):
    assert check("txt", b"x") is None


def entry(**parts):
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **parts}}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"[]", "does not begin with {"),
        (b"{", "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b'{"w":1,"w":2}', "twice"),
        (entry(dtype="F31"), "not described"),
        (entry(shape=[3]), "another size"),
        (entry(shape=[-2, -1]), "impossible"),
        (entry(shape=[True, 2]), "impossible"),
        (entry(shape=[2**62, 2**62]), "another size"),
        (entry(shape=[1] * 40), "impossible"),
        (entry(shape="ab"), "impossible"),
        (entry(data_offsets=[8, 16]), "gap"),
        (entry(data_offsets=[8, 0]), "another size"),
        (entry(data_offsets=[0]), "not described"),
        ({**entry(), "v": entry()["w"]}, "overlaps"),
        (entry(shape=[1], data_offsets=[0, 4]), "take 4 bytes and 8 are there"),
        ({"__metadata__": {"a": 1}, **entry()}, "more than texts"),
        ({"w": None}, "not described"),
    ],
)
def test_a_safetensors_header_that_does_not_hold_is_refused(check, weights, header, said):
    with pytest.raises(UnsafeWeights, match=said):
        check("safetensors", weights.safetensors(header=header))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "shorter"),
        (struct.pack("<Q", 100) + b"{}", "ends within"),
        (struct.pack("<Q", MAX_SAFETENSORS_HEADER + 1), "would take"),
        (struct.pack("<Q", 2**63), "would take"),
    ],
)
def test_a_safetensors_file_that_is_cut_off_is_refused(check, content, said):
    with pytest.raises(UnsafeWeights, match=said):
        check("safetensors", content)


def head(tensors=0, pairs=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGML", "begin with GGUF"),
        (b"GG", "ends within"),
        (head(version=9), "version is 9"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (head(tensors=2**60), "claims"),
        (head(pairs=2**60), "claims"),
        (head(pairs=1) + struct.pack("<Q", 2**62), "ends within"),
        (head(pairs=1) + struct.pack("<Q1sI", 1, b"k", 99), "unknown type"),
        (head(pairs=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 2**61), "ends within"),
        (head(pairs=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**61), "ends within"),
        (head(pairs=1) + struct.pack("<Q1sI", 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 8,
         "nested"),
        (head(pairs=2) + struct.pack("<Q1sIB", 1, b"k", 0, 1) * 2, "twice"),
        (head(), "no architecture"),
        (head(tensors=1) + struct.pack("<Q1sI", 1, b"w", 9), "dimensions"),
    ],
)  # fmt: skip
def test_a_gguf_header_that_does_not_hold_is_refused(check, content, said):
    with pytest.raises(UnsafeWeights, match=said):
        check("gguf", content)


def test_a_gguf_file_whose_tensors_are_not_all_there_is_refused(check, weights):
    with pytest.raises(UnsafeWeights, match="ends within the tensor"):
        check("gguf", weights.gguf()[:-4])


def test_a_gguf_file_in_disguise_of_the_other_is_refused(check, weights):
    with pytest.raises(UnsafeWeights):
        check("gguf", weights.safetensors())
    with pytest.raises(UnsafeWeights):
        check("safetensors", weights.gguf())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_header_holds_the_answer_is_yes_or_unsafe(check, weights, data):
    suffix = data.draw(st.sampled_from(["gguf", "safetensors"]))
    content = bytearray(weights.gguf() if suffix == "gguf" else weights.safetensors())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    with contextlib.suppress(UnsafeWeights):
        check(suffix, bytes(content))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_known_by_how_it_begins(tmp_path, protocol):
    path = tmp_path / "innocent.json"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    assert looks_like_pickle(path)
    path.write_bytes(b"PK\3\4rest")
    assert looks_like_pickle(path)
    path.write_text(json.dumps({"a": 1}))
    assert not looks_like_pickle(path)


def test_the_format_of_a_model_is_that_of_its_weights():
    assert format_of(["config.json", "model.safetensors"]) == "safetensors"
    assert format_of(["a.gguf", "b.safetensors"]) == "gguf"
    assert format_of(["pytorch_model.bin"]) == "pytorch"
