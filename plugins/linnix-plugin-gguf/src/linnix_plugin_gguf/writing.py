"""A checkpoint written as GGUF, tensor by tensor, with its tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
from numpy.typing import NDArray

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.architecture import Architecture, Part
from linnix_plugin_gguf.checkpoint import Array, Weights, pieces
from linnix_plugin_gguf.vocabulary import Vocabulary

__all__ = ["Model", "write_gguf"]

_TYPES = {
    "F32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "BF16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


@attrs.frozen(kw_only=True)
class Model:
    """A checkpoint that was read and understood."""

    weights: Weights
    architecture: Architecture
    parts: list[Part]
    #: Where config.json is.
    folder: Path
    #: Where the tokenizer and its configuration are.
    tokenizer: Path
    #: A token for each row of the embedding.
    vocabulary: Vocabulary

    def dtype(self) -> str:
        """The type that holds most of the weights without loss."""
        sizes: dict[str, int] = {}
        for part in self.parts:
            kind = self.weights.tensor(part.source).dtype
            sizes[kind] = sizes.get(kind, 0) + int(np.prod(part.shape, dtype=np.int64))
        return max(sizes, key=lambda kind: sizes[kind])

    def size(self, dtype: str) -> int:
        """Bytes that the tensors take as ``F32``, ``F16`` or ``BF16``."""
        return sum(_bytes(part, dtype) for part in self.parts)


def write_gguf(
    model: Model,
    target: Path,
    dtype: str,
    *,
    name: str,
    progress: Callable[[int, int], None],
) -> None:
    """Write all of it to ``target`` as ``F32``, ``F16`` or ``BF16``; vectors are always F32.

    ``progress`` is told the bytes written, and of how many. Raises `LinnixError`.
    """
    writer = gguf.GGUFWriter(target, model.architecture.name)
    rope = model.architecture.rope
    extra = {"rope_freqs.weight": rope.factors()} if rope.kind == "llama3" else {}
    try:
        writer.add_name(name)
        writer.add_file_type(_TYPES[dtype][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_numbers(writer, model)
        _add_tokenizer(writer, model)
        for key, vector in extra.items():
            writer.add_tensor_info(
                key, vector.shape, vector.dtype, vector.nbytes, gguf.GGMLQuantizationType.F32
            )
        for part in model.parts:
            kind = _TYPES[_kind(part, dtype)][0]
            writer.add_tensor_info(
                part.name, part.shape, np.dtype(np.float32), _bytes(part, dtype), kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, model, dtype, extra, progress)
    except UnicodeError as error:
        raise LinnixError(f"the tokenizer in {model.tokenizer} holds what is no text") from error
    finally:
        writer.close()


def _kind(part: Part, dtype: str) -> str:
    return dtype if len(part.shape) > 1 else "F32"


def _bytes(part: Part, dtype: str) -> int:
    width = 4 if _kind(part, dtype) == "F32" else 2
    return width * int(np.prod(part.shape, dtype=np.int64))


def _write_tensors(
    writer: gguf.GGUFWriter,
    model: Model,
    dtype: str,
    extra: dict[str, Array],
    progress: Callable[[int, int], None],
) -> None:
    file: Any = writer.fout[0] if writer.fout else None
    align = writer.data_alignment
    writer.write_padding(file, file.tell(), align)
    for vector in extra.values():
        file.write(vector.data)
        writer.write_padding(file, vector.nbytes, align)
    done, total = 0, model.size(dtype)
    for part in model.parts:
        kind = _kind(part, dtype)
        for _, piece in pieces(model.weights.tensor(part.source), part.order):
            encoded = _encoded(piece, kind, part.source)
            file.write(encoded.data)
            done += encoded.nbytes
            progress(done, total)
        writer.write_padding(file, _bytes(part, dtype), align)


def _encoded(piece: Array, kind: str, name: str) -> NDArray[Any]:
    if kind == "F32":
        return piece.astype("<f4", copy=False)
    if kind == "BF16":
        return gguf.quants.quantize(piece, gguf.GGMLQuantizationType.BF16)
    with np.errstate(over="ignore"):
        half = piece.astype("<f2")
    if not np.isfinite(half).all() and np.isfinite(piece).all():
        raise LinnixError(
            f"the tensor {printable(name, 80)} holds numbers that are too large for F16",
            hint="convert to BF16 or F32",
        )
    return half


# --- metadata -------------------------------------------------------------------------


def _add_numbers(writer: gguf.GGUFWriter, model: Model) -> None:
    of = model.architecture
    writer.add_context_length(of.context)
    writer.add_embedding_length(of.hidden)
    writer.add_block_count(of.layers)
    writer.add_feed_forward_length(of.inner)
    writer.add_head_count(of.heads)
    writer.add_head_count_kv(of.kv_heads)
    writer.add_layer_norm_rms_eps(of.epsilon)
    writer.add_vocab_size(len(model.vocabulary.tokens))
    writer.add_rope_dimension_count(of.head_size)
    writer.add_rope_freq_base(of.rope.theta)
    if of.says_head_size:
        writer.add_key_length(of.head_size)
        writer.add_value_length(of.head_size)
    if of.rope.kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(of.rope.kind))
        writer.add_rope_scaling_factor(of.rope.number("factor"))
    if of.rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(
            int(of.rope.number("original_max_position_embeddings"))
        )
        if of.rope.scaling.get("beta_fast"):
            writer.add_rope_scaling_yarn_beta_fast(of.rope.number("beta_fast"))
        if of.rope.scaling.get("beta_slow"):
            writer.add_rope_scaling_yarn_beta_slow(of.rope.number("beta_slow"))
        if of.rope.scaling.get("attention_factor"):
            # llama.cpp multiplies it with the usual one.
            writer.add_rope_scaling_attn_factors(of.rope.magnitude() / of.rope.usual_magnitude())


def _add_tokenizer(writer: gguf.GGUFWriter, model: Model) -> None:
    vocabulary, rows = model.vocabulary, len(model.vocabulary.tokens)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    if vocabulary.adds_space is not None:
        writer.add_add_space_prefix(vocabulary.adds_space)
    try:
        special = gguf.SpecialVocab(
            model.tokenizer, load_merges=vocabulary.model == "gpt2", n_vocab=rows
        )
        if model.tokenizer != model.folder:
            # Ids that only the base's config.json has.
            for kind, number in gguf.SpecialVocab(
                model.folder, n_vocab=rows
            ).special_token_ids.items():
                special.special_token_ids.setdefault(kind, number)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise LinnixError(
            f"the special tokens in {model.tokenizer} are not as they must be: {error}"
        ) from error
    if vocabulary.model == "gpt2":
        # llama.cpp would put one before every text for some pre-tokenizers.
        special.add_special_token.setdefault("bos", False)
    special.add_to_gguf(writer, quiet=True)
