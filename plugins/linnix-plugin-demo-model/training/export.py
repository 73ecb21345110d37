"""From a checkpoint to a folder that transformers reads, and a GGUF that llama.cpp runs.

    python -m training.export CHECKPOINT.pt FOLDER --quantization Q8_0

The GGUF is made and checked by linnix-plugin-gguf: its tokens are those of the tokenizer, its
logits those of the network.
"""

# ruff: noqa: T201 - a script, which prints

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

__all__ = ["save_gguf", "save_huggingface"]

NAME = "linnix-demo"


def save_huggingface(checkpoint: Path, folder: Path) -> None:
    """``config.json``, ``model.safetensors`` and the tokenizer."""
    from safetensors.torch import save_file

    from training.tokenizing import Tokenizer
    from training.train import load_checkpoint

    tokenizer = Tokenizer()
    model = load_checkpoint(checkpoint, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.huggingface() | {
        "bos_token_id": tokenizer.id_of("<|system|>"),
        "eos_token_id": tokenizer.id_of("<|end|>"),
        "pad_token_id": tokenizer.id_of("<|pad|>"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(model.exported(), folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(folder)


def save_gguf(folder: Path, target: Path, quantization: str) -> dict[str, object]:
    """The GGUF of such a folder, and how close its logits are."""
    from linnix_plugin_gguf import convert
    from linnix_plugin_models import ConversionRequest

    with tempfile.TemporaryDirectory() as work:
        made = convert(
            ConversionRequest(
                model_id=NAME,
                source=folder,
                target=target,
                work=Path(work),
                quantization=quantization,
            )
        )
    return dict(made.details)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quantization", default="Q8_0")
    parser.add_argument("--only", choices=("huggingface", "gguf"))
    chosen = parser.parse_args()
    if chosen.only != "gguf":
        save_huggingface(chosen.checkpoint, chosen.folder)
    if chosen.only != "huggingface":
        target = chosen.folder / f"{NAME}-{chosen.quantization.lower()}.gguf"
        print(json.dumps(save_gguf(chosen.folder, target, chosen.quantization)))


if __name__ == "__main__":
    main()
