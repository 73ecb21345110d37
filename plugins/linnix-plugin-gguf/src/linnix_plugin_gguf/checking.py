"""Whether a GGUF says what its checkpoint says: its tokens, and its logits on a prompt."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import attrs
import numpy as np

from linnix_core import LinnixError
from linnix_plugin_gguf.checkpoint import Array
from linnix_plugin_gguf.tools import Logits
from linnix_plugin_gguf.vocabulary import tokenizer_config

__all__ = ["PROMPT", "PROMPT_TOKENS", "Agreement", "check_logits", "check_tokens", "source_tokens"]

#: Of this the first tokens are asked about. It holds what pre-tokenizers cut differently:
#: digits in a row, contractions in both cases, spaces and lines in a row, other scripts.
PROMPT = (
    "The host forks 212 processes/s: it's ./run.sh (pid 4412), which DOESN'T end.\n\n"
    '    cpu = 97.5 %\tload = 12345678; naïve, Größe, 東京, ünïcode — "done"?  Yes.\n'
)
PROMPT_TOKENS = 16

#: How far logits may be from those of the source, in standard deviations of the latter, and
#: how well they must correlate. llama.cpp rounds activations to the type of the weights.
_ERRORS = {"F32": 0.02, "F16": 0.02, "BF16": 0.06}
_CORRELATIONS = {"8": 0.98, "6": 0.97, "5": 0.94, "4": 0.88, "3": 0.7, "2": 0.4, "1": 0.2}


@attrs.frozen
class Agreement:
    """How close logits are to those that they should be."""

    #: The largest root mean square over the prompt, in standard deviations of the source.
    error: float
    #: The mean over the prompt.
    correlation: float
    #: The share of the prompt after which the same token is the likeliest.
    same_choice: float

    @classmethod
    def of(cls, found: Array, wanted: Array) -> Agreement:
        """Compare rows; what is added to all logits of a row changes nothing."""
        f = found - found.mean(axis=1, keepdims=True)
        w = wanted - wanted.mean(axis=1, keepdims=True)
        spread = np.sqrt((w * w).mean(axis=1)) + 1e-12
        error = np.sqrt(((f - w) ** 2).mean(axis=1)) / spread
        product = (f * w).mean(axis=1) / (spread * np.sqrt((f * f).mean(axis=1)) + 1e-12)
        same = (found.argmax(axis=1) == wanted.argmax(axis=1)).mean()
        return cls(float(error.max()), float(product.mean()), float(same))

    def as_dict(self) -> dict[str, float]:
        """Rounded, for people."""
        return {key: round(value, 5) for key, value in attrs.asdict(self).items()}


def check_logits(found: Array, wanted: Array, quantization: str) -> Agreement:
    """Compare with what the source says. Raises `LinnixError`."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise LinnixError(f"the {quantization} that was made answers with no usable numbers")
    agreement = Agreement.of(found, wanted)
    digit = next((c for c in quantization if c.isdigit()), "8")
    if quantization in _ERRORS:
        holds = agreement.error <= _ERRORS[quantization]
    else:
        holds = agreement.correlation >= _CORRELATIONS.get(digit, 0.9)
    if not holds:
        raise LinnixError(
            f"the {quantization} that was made does not say what its source says "
            f"(error {agreement.error:.2f}, correlation {agreement.correlation:.2f})",
            hint=None if quantization in _ERRORS else "choose one with more bits",
        )
    return agreement


def source_tokens(folder: Path) -> list[int] | None:
    """The prompt as tokens of the source's own tokenizer; None where nothing here runs it."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT).ids
        except Exception as error:  # whatever its Rust side makes of a bad file
            raise LinnixError(f"tokenizer.json in {folder} cannot be used: {error}") from error
        return ids
    if importlib.util.find_spec("sentencepiece") is not None:
        from sentencepiece import SentencePieceProcessor

        model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        begins = tokenizer_config(folder).get("add_bos_token", True)
        return [*([model.bos_id()] if begins else []), *model.encode(PROMPT)]
    return None


def check_tokens(found: Logits, wanted: list[int] | None) -> str:
    """Whether llama.cpp cuts the prompt as its source does. Raises `LinnixError`."""
    if wanted is None:
        return "not compared: pip install 'linnix-plugin-gguf[sentencepiece]'"
    if found.tokens != wanted:
        pairs = enumerate(zip(found.tokens, wanted, strict=False), 1)
        at = next((n for n, (f, w) in pairs if f != w), min(len(found.tokens), len(wanted)) + 1)
        raise LinnixError(
            "llama.cpp does not cut text into tokens as the source does: "
            f"of {len(wanted)} tokens number {at} differs"
        )
    return "the same"
