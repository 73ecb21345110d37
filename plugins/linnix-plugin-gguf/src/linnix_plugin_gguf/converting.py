"""From a checkpoint to a GGUF that was run and says what its source says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from linnix_core import LinnixError
from linnix_plugin_gguf import tools
from linnix_plugin_gguf.adapter import BY_PEFT, is_adapter
from linnix_plugin_gguf.architecture import NotSupported
from linnix_plugin_gguf.checking import (
    PROMPT,
    PROMPT_TOKENS,
    Agreement,
    check_logits,
    check_tokens,
    source_tokens,
)
from linnix_plugin_gguf.checkpoint import Array
from linnix_plugin_gguf.reading import read_model
from linnix_plugin_gguf.reference import reference_logits
from linnix_plugin_gguf.vocabulary import tokenizer_folder
from linnix_plugin_gguf.writing import Model, write_gguf
from linnix_plugin_models import Conversion, ConversionRequest

__all__ = ["convert"]

#: What is written without llama.cpp.
PLAIN = ("F32", "F16", "BF16")


def convert(request: ConversionRequest) -> Conversion:
    """Make a GGUF of a checkpoint, or of an adapter and its base, and check that it holds.

    Quantized is a file in the type of the checkpoint, so that values are rounded once.
    Raises `LinnixError`.
    """
    tools.need_library()
    wanted = request.quantization
    plain = request.target if wanted in PLAIN else request.work / "plain.gguf"
    model, dtype = _write_plain(request, plain)
    request.progress("checking it", 0, None)
    answered = tools.run_logits(plain, PROMPT, PROMPT_TOKENS, request.work)
    details: dict[str, object]
    if model is not None:
        details = {"converted_by": "linnix", "compared_with": "the source"}
        tokenizer = model.tokenizer
        reference = reference_logits(model, answered.tokens[:PROMPT_TOKENS])
    else:
        details = {"converted_by": "llama.cpp"}
        source = request.source
        tokenizer = tokenizer_folder(source if source.is_dir() else source.parent)
        # With itself: only that they are numbers is known of these.
        reference = answered.values
    details["tokens"] = check_tokens(answered, source_tokens(tokenizer))
    agreement = check_logits(answered.values, reference, dtype)
    details["logits"] = agreement.as_dict() if model else "not compared with the source"
    if plain != request.target:
        details["logits"] = _quantize(request, plain, reference).as_dict()
        details.setdefault("compared_with", "what llama.cpp's script made, not the source")
    return Conversion(quantization=wanted, details=details)


def _write_plain(request: ConversionRequest, plain: Path) -> tuple[Model | None, str]:
    """Write a file without quantization, and say of what type; None: llama.cpp's script did."""
    wanted = request.quantization
    request.progress("reading the checkpoint", 0, None)
    try:
        model = read_model(request.source, request.base)
    except NotSupported as error:
        if is_adapter(request.source):
            raise LinnixError(str(error), hint=BY_PEFT) from None
        dtype = wanted if wanted in PLAIN else "auto"
        request.progress("converting with llama.cpp's script", 0, None)
        tools.convert_by_llama_cpp(request.source, plain, dtype, request.llama_cpp_dir, error)
        return None, wanted if wanted in PLAIN else "BF16"
    dtype = wanted if wanted in PLAIN else model.dtype()
    _need_space(request, model, dtype)
    write_gguf(
        model,
        plain,
        dtype,
        name=request.model_id,
        progress=lambda done, total: request.progress("writing tensors", done, total),
    )
    return model, dtype


def _quantize(request: ConversionRequest, plain: Path, reference: Array) -> Agreement:
    tools.Quantizer.find(request.llama_cpp_dir).quantize(
        plain,
        request.target,
        request.quantization,
        lambda done, total: request.progress("quantizing", done, total),
    )
    plain.unlink()
    request.progress("checking it", 0, None)
    answered = tools.run_logits(request.target, PROMPT, PROMPT_TOKENS, request.work)
    return check_logits(answered.values, reference, request.quantization)


def _need_space(request: ConversionRequest, model: Model, dtype: str) -> None:
    """Say now that the disk is too small, not when it is full."""
    needed = model.size(dtype)
    if request.quantization not in PLAIN:
        # Some tensors get more bits than the name says.
        bits = int((re.findall(r"\d", request.quantization) or "8")[0]) + 2
        needed += model.size("F16") * bits // 16
    free = shutil.disk_usage(request.work).free
    if needed > free:
        raise LinnixError(
            f"{request.work.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB "
            "are needed",
            hint="deployment.local_models_dir in sync.toml names another place",
        )
