"""Checkpoints of the Llama and Qwen2 families to GGUF: quantized, and checked before they count.

`convert` is the converter ``gguf`` of linnix-plugin-models; it is loaded on first use, for
`linnix_plugin_gguf.native` needs little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linnix_plugin_gguf.converting import convert

__all__ = ["convert"]


def __getattr__(name: str) -> Any:
    if name != "convert":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from linnix_plugin_gguf.converting import convert

    return convert
