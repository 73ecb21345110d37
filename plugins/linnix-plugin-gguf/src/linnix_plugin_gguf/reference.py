"""What a checkpoint itself answers: a forward pass in numpy, for a prompt of some tokens.

It follows transformers' Llama and Qwen2 in float32 and reads weights piece by piece, so that it
needs little memory and no torch. It is slow and meant for comparing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from linnix_plugin_gguf.checkpoint import Array, pieces
from linnix_plugin_gguf.writing import Model

__all__ = ["reference_logits"]

#: By how much each pair of dimensions is turned at each position, as complex numbers.
Turn: TypeAlias = NDArray[np.complex64]


def reference_logits(model: Model, tokens: Sequence[int]) -> Array:
    """The logits after each of the tokens: a row for each, a column for each token there is."""
    of = model.architecture
    x = model.weights.tensor("model.embed_tokens.weight").read(np.asarray(tokens, dtype=np.intp))
    angles = np.outer(np.arange(len(tokens)), of.rope.frequencies())
    turn = np.float32(of.rope.magnitude()) * np.exp(1j * angles).astype(np.complex64)
    for layer in range(of.layers):
        block = _Block(model, f"model.layers.{layer}.")
        x = x + block.attention(_normalized(model, x, f"{block.prefix}input_layernorm"), turn)
        x = x + block.feed_forward(_normalized(model, x, f"{block.prefix}post_attention_layernorm"))
    x = _normalized(model, x, "model.norm")
    return _linear(model, x, "model.embed_tokens" if of.tied else "lm_head")


class _Block:
    """One layer."""

    def __init__(self, model: Model, prefix: str) -> None:
        self._model = model
        self.prefix = prefix

    def attention(self, x: Array, turn: Turn) -> Array:
        of = self._model.architecture
        q = self._heads(x, "self_attn.q_proj", of.heads)
        k = self._heads(x, "self_attn.k_proj", of.kv_heads)
        v = self._heads(x, "self_attn.v_proj", of.kv_heads)
        k, v = (np.repeat(each, of.heads // of.kv_heads, axis=0) for each in (_turned(k, turn), v))
        scores = _turned(q, turn) @ k.swapaxes(1, 2) / np.float32(np.sqrt(of.head_size))
        count = len(x)
        scores[:, ~np.tri(count, dtype=bool)] = -np.inf
        weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weight / weight.sum(axis=-1, keepdims=True)) @ v
        joined = mixed.swapaxes(0, 1).reshape(count, -1)
        return _linear(self._model, joined, f"{self.prefix}self_attn.o_proj")

    def feed_forward(self, x: Array) -> Array:
        gate = _linear(self._model, x, f"{self.prefix}mlp.gate_proj")
        up = _linear(self._model, x, f"{self.prefix}mlp.up_proj")
        with np.errstate(over="ignore"):
            gate = gate / (1 + np.exp(-gate))
        return _linear(self._model, gate * up, f"{self.prefix}mlp.down_proj")

    def _heads(self, x: Array, name: str, heads: int) -> Array:
        made = _linear(self._model, x, f"{self.prefix}{name}")
        return made.reshape(len(x), heads, -1).swapaxes(0, 1)


def _linear(model: Model, x: Array, name: str) -> Array:
    tensor = model.weights.tensor(f"{name}.weight")
    made = np.empty((len(x), tensor.shape[0]), dtype=np.float32)
    for begin, rows in pieces(tensor):
        made[:, begin : begin + len(rows)] = x @ rows.T
    if f"{name}.bias" in model.weights.names():
        made += model.weights.tensor(f"{name}.bias").read(slice(None))
    return made


def _normalized(model: Model, x: Array, name: str) -> Array:
    mean = np.mean(x * x, axis=-1, keepdims=True)
    weight = model.weights.tensor(f"{name}.weight").read(slice(None))
    normalized: Array = x / np.sqrt(mean + np.float32(model.architecture.epsilon)) * weight
    return normalized


def _turned(x: Array, turn: Turn) -> Array:
    """Rotate the first half of each head against its second half."""
    first, second = np.split(x, 2, axis=-1)
    turned = (first + 1j * second) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)
