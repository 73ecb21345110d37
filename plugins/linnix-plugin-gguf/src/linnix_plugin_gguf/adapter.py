"""A LoRA adapter (PEFT) merged into its base, row by row, as the rows are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.checkpoint import (
    Array,
    Rows,
    Tensor,
    Weights,
    open_safetensors,
    read_json,
)

__all__ = ["BY_PEFT", "Merged", "is_adapter"]

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<name>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.default)?(?:\.weight)?"
)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / "adapter_config.json").is_file()


_NAME = re.compile(r"[\w.]+")
#: What a person can do about an adapter that is not merged here.
BY_PEFT = "merge it with PEFT (merge_and_unload) and convert the result"

#: How an adapter begins (init_lora_weights) without a change of its base; others subtract from it.
_BEGINNINGS = ("gaussian", "eva", "orthogonal")

#: Settings of PEFT's LoraConfig that make it more than a sum of products.
_BEYOND = (
    "use_dora", "fan_in_fan_out", "trainable_token_indices", "layer_replication", "lora_bias",
    "target_parameters", "use_qalora", "use_bdlora", "kasa_config", "monteclora_config",
    "velora_config", "arrow_config", "alora_invocation_tokens",
)  # fmt: skip


@attrs.frozen(eq=False)
class _Sum:
    """A tensor plus what a pair of small ones adds to it."""

    _base: Tensor
    #: Rows of the one times the whole of the other.
    _left: Array
    _right: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._base.shape

    @property
    def dtype(self) -> str:
        return self._base.dtype

    def read(self, rows: Rows) -> Array:
        return self._base.read(rows) + self._left[rows] @ self._right


class Merged:
    """The tensors of a base with an adapter's changes; nothing is written.

    Raises `LinnixError` for an adapter that is more than LoRA.
    """

    def __init__(self, base: Weights, folder: Path) -> None:
        self._base = base
        self._config = read_json(folder / "adapter_config.json")
        self._refuse_others()
        file = folder / "adapter_model.safetensors"
        if not file.is_file():
            raise LinnixError(
                f"there is no adapter_model.safetensors in {folder}",
                hint="pickles (adapter_model.bin) are not read",
            )
        self._pairs: dict[str, dict[str, Array]] = {}
        self._replaced: dict[str, Tensor] = {}
        for name, tensor in open_safetensors(file).items():
            self._take(name, tensor)

    def names(self) -> Sequence[str]:
        """The tensors of the base."""
        return self._base.names()

    def tensor(self, name: str) -> Tensor:
        """One of them, changed as the adapter says. Raises `LinnixError`."""
        base = self._replaced.get(name) or self._base.tensor(name)
        pair = self._pairs.get(name)
        if pair is None:
            return base
        if pair.keys() not in ({"A", "B"}, {"embedding_A", "embedding_B"}):
            raise LinnixError(f"the adapter has only one half for {printable(name, 120)}")
        if "A" in pair:
            left, right = pair["B"], pair["A"]
        else:
            left, right = pair["embedding_A"].T, pair["embedding_B"].T
        fits = left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0]
        if not fits or (left.shape[0], right.shape[1]) != base.shape:
            raise LinnixError(
                f"the adapter does not fit its base: {printable(name, 120)} is {base.shape}",
                hint="is it the base that the adapter was trained on?",
            )
        return _Sum(base, np.float32(self._scale(name, right.shape[0])) * left, right)

    def _take(self, name: str, tensor: Tensor) -> None:
        plain = name.removeprefix(_PREFIX)
        part = _PART.fullmatch(plain)
        if part is None:
            # What was trained whole (modules_to_save, biases) takes the place of the base's.
            plain = plain.replace(".modules_to_save", "").replace(".base_layer", "")
            if plain not in self._base.names():
                raise LinnixError(
                    f"the adapter holds {printable(name, 120)}, which its base does not have"
                )
            self._replaced[plain] = tensor
            return
        target = f"{part['name']}.weight"
        if target not in self._base.names():
            raise LinnixError(
                f"the adapter changes {printable(target, 120)}, which its base does not have",
                hint="is it the base that the adapter was trained on?",
            )
        side = (part["kind"] or "") + part["side"]
        self._pairs.setdefault(target, {})[side] = tensor.read(slice(None))

    def _scale(self, name: str, rank: int) -> float:
        """What PEFT multiplies the change of a module with."""
        module = name.removesuffix(".weight")
        alpha = float(self._pattern("alpha_pattern", module, self._config.get("lora_alpha", rank)))
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _pattern(self, key: str, module: str, otherwise: Any) -> Any:
        patterns: Mapping[str, Any] = self._config.get(key) or {}
        for pattern, value in patterns.items():
            # PEFT takes regular expressions; those of a file are not run here.
            if not _NAME.fullmatch(pattern):
                raise LinnixError(f"{key} of the adapter holds more than names", hint=BY_PEFT)
            if module == pattern or module.endswith(f".{pattern}"):
                return value
        return otherwise

    def _refuse_others(self) -> None:
        kind = self._config.get("peft_type")
        if kind != "LORA":
            raise LinnixError(f"the adapter is {printable(str(kind), 40)}, and only LoRA is merged")
        begun = self._config.get("init_lora_weights", True)
        if isinstance(begun, str) and begun.lower() not in _BEGINNINGS:
            raise LinnixError(
                f"the adapter was begun as {printable(begun, 40)}, which changes its base",
                hint=BY_PEFT,
            )
        for key in _BEYOND:
            if self._config.get(key):
                raise LinnixError(f"the adapter uses {key}, which is not merged here", hint=BY_PEFT)
