"""The network: Llama's architecture, small, as llama.cpp and transformers run it."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Config", "Llama"]


@attrs.frozen
class Config:
    """Sizes. Rows of 256 numbers are what llama.cpp's K-quants are made for."""

    vocabulary: int
    hidden: int = 256
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 512
    context: int = 2048
    rope_theta: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        """Numbers of a head."""
        return self.hidden // self.heads

    def huggingface(self) -> dict[str, Any]:
        """``config.json``, as transformers reads it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.epsilon,
            "rope_theta": self.rope_theta,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }


class _Norm(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden))
        self.epsilon = config.epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)


class _Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        wide, narrow = config.heads * config.head, config.kv_heads * config.head

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False)

        self.input_layernorm = _Norm(config)
        self.q_proj, self.o_proj = linear(config.hidden, wide), linear(wide, config.hidden)
        self.k_proj, self.v_proj = linear(config.hidden, narrow), linear(config.hidden, narrow)
        self.post_attention_layernorm = _Norm(config)
        self.gate_proj = linear(config.hidden, config.feed_forward)
        self.up_proj = linear(config.hidden, config.feed_forward)
        self.down_proj = linear(config.feed_forward, config.hidden)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], at: Tensor | None) -> Tensor:
        """``at`` are the positions that are wanted of the last layer, None for all."""
        batch, length, _ = x.shape
        c = self.config
        normed = self.input_layernorm(x)
        k = self._heads(self.k_proj(normed), c.kv_heads)
        v = self._heads(self.v_proj(normed), c.kv_heads)
        k = _rotated(k, *rotation)
        cos, sin = rotation
        if at is None:
            q = _rotated(self._heads(self.q_proj(normed), c.heads), cos, sin)
            mask = None
        else:
            index = at[:, :, None].expand(-1, -1, x.shape[-1])
            x, normed = x.gather(1, index), normed.gather(1, index)
            q = self._heads(self.q_proj(normed), c.heads)
            q = _rotated(q, cos[at][:, None], sin[at][:, None])
            mask = (torch.arange(length)[None, None] <= at[:, :, None])[:, None]
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, dim=1) for t in (k, v))
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None
        )
        x = x + self.o_proj(out.transpose(1, 2).reshape(batch, x.shape[1], -1))
        normed = self.post_attention_layernorm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(normed)) * self.up_proj(normed))

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], count, self.config.head).transpose(1, 2)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves together as transformers has them."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


#: Where transformers has the parts of a layer, by the begin of their names.
_GROUPS = dict.fromkeys("qkvo", "self_attn.") | dict.fromkeys(("gate", "up", "down"), "mlp.")


class Llama(nn.Module):
    """Logits from ids. ``shared`` says which row of the embedding each token has."""

    def __init__(self, config: Config, shared: list[int]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("shared", torch.tensor(shared), persistent=False)
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = _Norm(config)
        steps = torch.arange(0, config.head, 2) / config.head
        angles = torch.outer(torch.arange(config.context), config.rope_theta**-steps)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02 if "embed" in name else config.hidden**-0.5 / 2)
        for layer in self.layers:
            nn.init.zeros_(layer.o_proj.weight)
            nn.init.zeros_(layer.down_proj.weight)

    def forward(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """``ids`` (batch, length), ``at`` (batch, positions): logits of these, or of all."""
        x = functional.embedding(self.shared[ids], self.embed_tokens.weight)
        rotation = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, rotation, at if number == last else None)
        return functional.linear(self.norm(x), self.embed_tokens.weight)

    def exported(self) -> dict[str, Tensor]:
        """Tensors by their names in a file of transformers, with the shared rows written out."""
        tensors = {"model.embed_tokens.weight": self.embed_tokens.weight[self.shared]}
        for name, parameter in self.named_parameters():
            place, _, rest = name.partition(".")
            if place == "layers":
                number, _, part = rest.partition(".")
                group = _GROUPS.get(part.split("_")[0], "")
                tensors[f"model.layers.{number}.{group}{part}"] = parameter
            elif place == "norm":
                tensors[f"model.{name}"] = parameter
        return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
