"""Tiny checkpoints for tests: random weights, a tokenizer, the files that Hugging Face has.

They are large enough for every quantization (rows are multiples of 256) and small enough to
be made in a moment. A model that is not ``tied`` prefers short answers: after a quote a
letter, after a letter or digit what ends it, and white space last, so that a grammar for JSON
ends after few tokens.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["tiny_adapter", "tiny_checkpoint", "write_safetensors"]

Array = NDArray[np.float32]

_SPECIAL = {
    "llama": ("<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|pad|>"),
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
}

_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

#: Words that become one token each, so that prompts about incidents stay short.
_WORDS = re.findall(
    "[a-z]+",
    """
the of and to in is it one ids facts process processes action actions fork forks storm short job
flood runaway tree cpu spin io saturation oom risk normal class confidence none memory per cent
percent rss mib pid name that what with your you use object json reply key keys list from user
system assistant data not all
""",
)

#: What the pre-tokenizers of well-known models look like in their tokenizer.json.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
        "use_regex": use_regex,
    }  # fmt: skip


def _split(digits: str) -> dict[str, Any]:
    pattern = f"{_CONTRACTIONS}|{_WORD}|{digits}|{_REST}"
    split = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


_PRE_TOKENIZERS = {
    "llama-bpe": _split(r"\p{N}{1,3}"),
    "qwen2": _split(r"\p{N}"),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    },
    "gpt-2": _byte_level(True),
}


def tiny_checkpoint(
    path: Path,
    family: Literal["llama", "qwen2"] = "llama",
    *,
    dtype: Literal["BF16", "F16", "F32"] = "BF16",
    layers: int = 2,
    hidden: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    tied: bool = False,
    shards: int = 1,
    tokenizer: Literal["llama-bpe", "qwen2", "smollm", "gpt-2", "sentencepiece"] | None = None,
    rope_scaling: Mapping[str, Any] | None = None,
    context: int = 8192,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Make a checkpoint of a family in the folder ``path``, and return it.

    ``tokenizer`` is the kind of its tokenizer, by the name that llama.cpp has for it; that of
    the family unless told. Its vocabulary is padded to a multiple of 64 rows. ``config`` adds
    to config.json, or replaces what is there.
    """
    path.mkdir(parents=True, exist_ok=True)
    kind = tokenizer or {"llama": "llama-bpe", "qwen2": "qwen2"}[family]
    if kind == "sentencepiece":
        tokens = _write_sentencepiece(path)
    else:
        tokens = _write_bpe(path, family, kind)
    rows = -(-len(tokens) // 64) * 64
    described = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[family]],
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5 if family == "llama" else 1e-6,
        "rope_theta": 500000.0 if family == "llama" else 1000000.0,
        "rope_scaling": dict(rope_scaling) if rope_scaling else None,
        "tie_word_embeddings": tied,
        "vocab_size": rows,
        "hidden_act": "silu",
        "bos_token_id": 0 if kind != "sentencepiece" else 1,
        "eos_token_id": tokens.index("<|im_end|>") if "<|im_end|>" in tokens else 2,
        "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype],
        **config,
    }
    _write_json(path / "config.json", described)
    tensors = _weights(described, tokens, family, np.random.default_rng(seed))
    names = list(tensors)
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, dtype)
        return path
    placed: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        write_safetensors(path / file, part, dtype)
        placed |= dict.fromkeys(part, file)
    total = sum(array.size for array in tensors.values()) * (4 if dtype == "F32" else 2)
    _write_json(
        path / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": placed},
    )
    return path


def tiny_adapter(
    path: Path,
    base: Path,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("q_proj", "v_proj", "down_proj"),
    base_name: str | None = None,
    seed: int = 1,
    **config: Any,
) -> Path:
    """Make a LoRA adapter (PEFT) for a checkpoint of `tiny_checkpoint`, and return its folder."""
    path.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shapes = _shapes(json.loads((base / "config.json").read_text()))
    tensors: dict[str, Array] = {}
    for name, (rows, columns) in shapes.items():
        if name.split(".")[-2] in targets:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = _random(random, rank, columns, scale=0.1)
            tensors[f"{stem}.lora_B.weight"] = _random(random, rows, rank, scale=0.1)
    write_safetensors(path / "adapter_model.safetensors", tensors, "F32")
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha,
        "lora_dropout": 0.0, "target_modules": list(targets), "bias": "none",
        "fan_in_fan_out": False, "base_model_name_or_path": base_name or str(base), **config,
    }  # fmt: skip
    _write_json(path / "adapter_config.json", described)
    return path


def write_safetensors(path: Path, tensors: Mapping[str, Array], dtype: str) -> None:
    """Write tensors to one file, as ``F32``, ``F16`` or ``BF16`` (rounded to nearest)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts = []
    end = 0
    for name, array in tensors.items():
        raw = _encoded(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [end, end + len(raw)],
        }
        end += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def _encoded(array: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        bits = array.astype("<f4").view("<u4").astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bytes(rounded.astype("<u2").data)
    return bytes(array.astype({"F32": "<f4", "F16": "<f2"}[dtype]).data)


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")


# --- weights --------------------------------------------------------------------------


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{layer}.{name}_proj.weight": shape
            for name, shape in (
                ("self_attn.q", (q, hidden)),
                ("self_attn.k", (kv, hidden)),
                ("self_attn.v", (kv, hidden)),
                ("self_attn.o", (hidden, q)),
                ("mlp.gate", (inner, hidden)),
                ("mlp.up", (inner, hidden)),
                ("mlp.down", (hidden, inner)),
            )
        }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _random(random: np.random.Generator, *shape: int, scale: float) -> Array:
    return (random.standard_normal(shape) * scale).astype(np.float32)


def _weights(
    config: Mapping[str, Any], tokens: Sequence[str], family: str, random: np.random.Generator
) -> dict[str, Array]:
    hidden = config["hidden_size"]
    tensors: dict[str, Array] = {}
    layer = 1 / np.sqrt(hidden)  # so that what comes out is as large as what went in
    for name, shape in _shapes(config).items():
        tensors[name] = _random(random, *shape, scale=layer if ".layers." in name else 0.3)
        biased = config.get("attention_bias", family == "qwen2") and name.split(".")[-2] in (
            ("q_proj", "k_proj", "v_proj", "o_proj") if family == "llama"
            else ("q_proj", "k_proj", "v_proj")
        )  # fmt: skip
        if biased:
            tensors[name.replace(".weight", ".bias")] = _random(random, shape[0], scale=0.1)
    norms = [
        f"model.layers.{layer}.{which}_layernorm.weight"
        for layer in range(config["num_hidden_layers"])
        for which in ("input", "post_attention")
    ]
    for name in (*norms, "model.norm.weight"):
        tensors[name] = 1 + _random(random, hidden, scale=0.05)
    if "lm_head.weight" in tensors:
        _make_terse(tensors["model.embed_tokens.weight"], tensors["lm_head.weight"], tokens)
    return tensors


def _make_terse(embedding: Array, head: Array, tokens: Sequence[str]) -> None:
    """Give the first three dimensions a meaning: always, after a quote, after a letter."""
    head *= 0.3
    embedding[:, :3] = 0
    head[:, :3] = 0
    embedding[:, 0] = 4
    for row, token in enumerate(tokens):
        if token.startswith("<"):
            head[row, 0] = -1
        elif token == '"':  # noqa: S105 - a quote
            embedding[row, 1] = 8
            head[row, 2] = 1
        elif token in ("}", "]"):
            head[row, 2] = 0.8
            head[row, 0] = 0.4
        elif token.isalnum() and token.isascii():
            embedding[row, 2] = 8
            head[row, 1] = 0.5
        elif not token.isascii() or token.isspace():
            head[row, 0] = -0.6


# --- tokenizers -----------------------------------------------------------------------


def _byte_names() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2)."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


def _write_bpe(path: Path, family: str, kind: str) -> list[str]:
    names = _byte_names()
    special = _SPECIAL[family]
    vocabulary = {token: number for number, token in enumerate([*special, *names])}
    merges: list[tuple[str, str]] = []
    for text in _WORDS:
        for spelled in (text, f" {text}"):
            word = "".join(names[byte] for byte in spelled.encode())
            for end in range(2, len(word) + 1):
                if word[:end] not in vocabulary:
                    vocabulary[word[:end]] = len(vocabulary)
                    merges.append((word[: end - 1], word[end - 1]))
    added = [
        {
            "id": number, "content": token, "special": True, "single_word": False,
            "lstrip": False, "rstrip": False, "normalized": False,
        }
        for number, token in enumerate(special)
    ]  # fmt: skip
    mark = len(vocabulary)
    added.append({**added[0], "id": mark, "content": "<tool>", "special": False})
    begin = {"SpecialToken": {"id": special[0], "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {special[0]: {"id": special[0], "ids": [0], "tokens": [special[0]]}},
    }
    _write_json(
        path / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"} if family == "qwen2" else None,
            "pre_tokenizer": _PRE_TOKENIZERS[kind],
            "post_processor": template if family == "llama" else _byte_level(False),
            "decoder": _byte_level(True),
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "byte_fallback": False,
                "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": False, "ignore_merges": kind == "llama-bpe",
                "vocab": vocabulary, "merges": [list(pair) for pair in merges],
            },
        },
    )  # fmt: skip
    _write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": special[0] if family == "llama" else None,
            "eos_token": "<|im_end|>",
            "pad_token": special[-1] if family == "llama" else special[0],
            "chat_template": _TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 8192,
        },
    )
    return [*vocabulary, "<tool>"]


def _write_sentencepiece(path: Path) -> list[str]:
    """A tokenizer.model as Llama 2 has one: BPE with bytes to fall back to."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    known: dict[str, None] = {}
    for word in _WORDS:
        for end in range(2, len(word) + 2):
            known[f"▁{word}"[:end]] = None
    single = dict.fromkeys("▁" + "".join(_WORDS) + "\"'.,:{}[]()0123456789ABCé")
    pieces += [(piece, -float(rank), 1) for rank, piece in enumerate([*known, *single])]
    model = b"".join(
        _field(1, _field(1, piece.encode()) + _fixed(2, score) + _number(3, kind))
        for piece, score, kind in pieces
    )
    trainer = _number(3, 2) + _number(35, 1)  # model_type BPE, byte_fallback
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    (path / "tokenizer.model").write_bytes(model + _field(2, trainer) + _field(3, normalizer))
    added = {
        str(number): {
            "content": token, "special": True, "lstrip": False, "rstrip": False,
            "normalized": False, "single_word": False,
        }
        for number, token in enumerate(("<unk>", "<s>", "</s>"))
    }  # fmt: skip
    _write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "pad_token": None, "add_bos_token": True,
            "add_eos_token": False, "legacy": True, "chat_template": _TEMPLATE,
            "added_tokens_decoder": added,
        },
    )  # fmt: skip
    return [piece for piece, _, _ in pieces]


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _fixed(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)
