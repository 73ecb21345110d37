"""What a model of the Llama and Qwen2 families is made of: its numbers, and its tensors by name.

Figures of rotary embeddings follow transformers (`modeling_rope_utils`), names of tensors and
metadata ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.checkpoint import Array, Weights

__all__ = ["Architecture", "NotSupported", "Part", "Rope"]

#: The classes of transformers that are converted here, and what llama.cpp calls them.
FAMILIES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}

#: Dimensions of a head: usual are 64 to 256.
MAX_HEAD = 2**16

#: Parts of a layer in llama.cpp and in transformers.
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

#: Buffers that older checkpoints hold and nothing needs.
_BUFFERS = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")


class NotSupported(LinnixError):
    """A model that only llama.cpp's own converter may know."""


@attrs.frozen
class Rope:
    """Rotary position embeddings: ``kind`` is ``default``, ``linear``, ``llama3`` or ``yarn``."""

    kind: str
    theta: float
    dimensions: int
    #: The parameters of the kind, as config.json has them.
    scaling: Mapping[str, Any]

    def frequencies(self) -> Array:
        """Radians per position, for each pair of dimensions."""
        powers = np.arange(0, self.dimensions, 2, dtype=np.float64) / self.dimensions
        plain = self.theta**-powers
        if self.kind == "linear":
            plain = plain / self.number("factor")
        elif self.kind == "llama3":
            plain = plain / self.factors()
        elif self.kind == "yarn":
            plain = self._yarn(plain)
        return plain.astype(np.float32)

    def factors(self) -> Array:
        """By how much llama3's scaling divides each frequency (``rope_freqs``)."""
        factor = self.number("factor", 8.0)
        low, high = self.number("low_freq_factor", 1.0), self.number("high_freq_factor", 4.0)
        before = self.number("original_max_position_embeddings", 8192)
        powers = np.arange(0, self.dimensions, 2, dtype=np.float32) / self.dimensions
        waves = 2 * np.pi * np.float32(self.theta) ** powers
        smooth = (before / waves - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        scaled = np.where(waves > before / low, factor, between)
        return np.where(waves < before / high, 1.0, scaled).astype(np.float32)

    def magnitude(self) -> float:
        """What yarn multiplies the rotated vectors with."""
        if self.kind != "yarn":
            return 1.0
        if self.scaling.get("attention_factor"):
            return self.number("attention_factor")
        return self.usual_magnitude()

    def usual_magnitude(self) -> float:
        """The same where config.json says nothing of it."""
        return 0.1 * math.log(self.number("factor")) + 1.0

    def _yarn(self, plain: NDArray[np.float64]) -> NDArray[np.float64]:
        before = self.number("original_max_position_embeddings")

        def dimension(rotations: float) -> float:
            turns = before / (rotations * 2 * math.pi)
            return self.dimensions * math.log(turns) / (2 * math.log(self.theta))

        low = max(math.floor(dimension(self.number("beta_fast", 32.0))), 0)
        high = min(math.ceil(dimension(self.number("beta_slow", 1.0))), self.dimensions - 1)
        ramp = np.clip((np.arange(plain.size) - low) / max(high - low, 0.001), 0, 1)
        return plain * (1 - ramp) + plain / self.number("factor") * ramp

    def number(self, key: str, otherwise: float | None = None) -> float:
        """A parameter of the kind that must be positive. Raises `LinnixError`."""
        return _positive(self.scaling, key, otherwise, f" for {self.kind} rope scaling")


@attrs.frozen
class Part:
    """A tensor of the GGUF, and where it comes from."""

    name: str
    source: str
    shape: tuple[int, ...]
    #: How its rows are ordered; None: as they are.
    order: NDArray[np.intp] | None = None


@attrs.frozen(kw_only=True)
class Architecture:
    """The numbers of a model, from its config.json. Raises `LinnixError`."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    epsilon: float
    rope: Rope
    tied: bool
    #: Whether config.json names the size of a head.
    says_head_size: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Architecture:
        """Read config.json. `NotSupported`: it is another kind of model."""
        classes = config.get("architectures")
        found = str(classes[0]) if isinstance(classes, list) and classes else ""
        if found not in FAMILIES:
            raise NotSupported(
                f"models of the kind {printable(found or 'unknown', 60)!r} are not converted here"
            )
        _refuse_more(config)
        hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
        head_size = config.get("head_dim")
        kv_heads = _count(config, "num_key_value_heads", heads)
        size = _count(config, "head_dim", hidden // heads)
        if hidden < heads or heads % kv_heads or size % 2 or size > MAX_HEAD:
            raise LinnixError(
                f"config.json has impossible numbers: {heads} heads, {kv_heads} for keys, "
                f"{hidden} dimensions, heads of {size}"
            )
        return cls(
            name=FAMILIES[found],
            layers=_count(config, "num_hidden_layers"),
            hidden=hidden,
            inner=_count(config, "intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_size=size,
            context=_count(config, "max_position_embeddings", 2048),
            epsilon=_positive(config, "rms_norm_eps", 1e-6),
            rope=_rope(config, size),
            tied=bool(config.get("tie_word_embeddings", False)),
            says_head_size=head_size is not None,
        )

    def parts(self, weights: Weights) -> list[Part]:
        """Every tensor of the GGUF in the order of the layers, checked against the weights."""
        names = set(weights.names())
        found = []
        for name, source, shape in self._expected():
            for kind in ("weight", "bias"):
                stored = f"{source}.{kind}"
                if kind == "bias" and stored not in names:
                    continue
                tensor = weights.tensor(stored)
                wanted = shape if kind == "weight" else shape[:1]
                # No number of rows: as many as there are, for the vocabulary may be padded.
                rows = tensor.shape[:1] if wanted[0] == 0 else wanted[:1]
                if tensor.shape != rows + wanted[1:]:
                    raise LinnixError(
                        f"the tensor {stored} has the shape {tensor.shape}, and config.json "
                        f"makes it {wanted}"
                    )
                names.discard(stored)
                found.append(
                    Part(f"{name}.{kind}", stored, tensor.shape, self._order(name, rows[0]))
                )
        if self.tied:
            names.discard("lm_head.weight")
        strange = sorted(name for name in names if not name.endswith(_BUFFERS))
        if strange:
            raise NotSupported(
                f"the checkpoint holds {printable(strange[0], 120)}, which no {self.name} model has"
            )
        return found

    def _expected(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        shapes = {
            "attn_norm": (self.hidden,), "ffn_norm": (self.hidden,),
            "attn_q": (q, self.hidden), "attn_k": (kv, self.hidden),
            "attn_v": (kv, self.hidden), "attn_output": (self.hidden, q),
            "ffn_gate": (self.inner, self.hidden), "ffn_up": (self.inner, self.hidden),
            "ffn_down": (self.hidden, self.inner),
        }  # fmt: skip
        yield "token_embd", "model.embed_tokens", (0, self.hidden)
        for layer in range(self.layers):
            for name, source in _LAYER.items():
                yield f"blk.{layer}.{name}", f"model.layers.{layer}.{source}", shapes[name]
        yield "output_norm", "model.norm", (self.hidden,)
        if not self.tied:
            yield "output", "lm_head", (0, self.hidden)

    def _order(self, name: str, rows: int) -> NDArray[np.intp] | None:
        """Rows as llama.cpp has them: for Llama it rotates neighbours, not halves of a head."""
        if self.name != "llama" or not name.endswith((".attn_q", ".attn_k")):
            return None
        return np.arange(rows).reshape(-1, 2, self.head_size // 2).swapaxes(1, 2).ravel()


def _refuse_more(config: Mapping[str, Any]) -> None:
    if config.get("quantization_config"):
        raise NotSupported("the checkpoint is quantized already")
    for key in ("num_local_experts", "num_experts", "n_routed_experts"):
        if config.get(key):
            raise NotSupported("models with experts are not converted here")
    if config.get("partial_rotary_factor", 1) != 1:
        raise NotSupported("models that rotate a part of each head are not converted here")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise NotSupported(
            f"the activation {printable(str(activation), 40)!r} is not that of Llama"
        )


def _rope(config: Mapping[str, Any], size: int) -> Rope:
    # transformers 5 writes one table; before it, theta stood beside the scaling.
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(said, Mapping):
        raise LinnixError("rope_scaling of config.json is no table")
    kind = str(said.get("rope_type", said.get("type", "default"))).lower()
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise NotSupported(f"rope scaling {printable(kind, 40)!r} is not converted here")
    theta = said.get("rope_theta", config.get("rope_theta", 10000.0))
    scaling = dict(said)
    for key in ("original_max_position_embeddings", "max_position_embeddings"):
        if config.get(key):
            scaling.setdefault("original_max_position_embeddings", config[key])
    rope = Rope(kind, _positive({"rope_theta": theta}, "rope_theta"), size, scaling)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    if rope.theta <= 1 or low >= high:
        raise LinnixError("config.json has impossible numbers for rotary embeddings")
    rope.frequencies()  # says now what is missing
    return rope


def _positive(
    config: Mapping[str, Any], key: str, otherwise: float | None = None, what: str = ""
) -> float:
    value = config.get(key, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise LinnixError(f"config.json has no usable {key}{what}")
    return float(value)


def _count(config: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = otherwise
    if type(value) is not int or not 0 < value < 2**31:
        raise LinnixError(f"config.json has no usable {key}")
    return value
