"""The tokenizer of a checkpoint, as llama.cpp keeps it in a GGUF.

Read are tokenizer.json (byte-level BPE, and the BPE with byte fallback that Llama 2's became)
and tokenizer.model (sentencepiece).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.architecture import NotSupported
from linnix_plugin_gguf.checkpoint import read_json

__all__ = ["Kind", "Vocabulary", "read_vocabulary", "tokenizer_config", "tokenizer_folder"]


class Kind(IntEnum):
    """What a token is; the numbers are those of GGUF and of sentencepiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@attrs.define
class Vocabulary:
    """Tokens by id. ``model`` and ``pre`` are llama.cpp's names for how text becomes tokens."""

    model: str
    pre: str
    tokens: list[str]
    kinds: list[Kind]
    #: Only sentencepiece has them.
    scores: list[float] | None = None
    adds_space: bool | None = None

    def pad(self, rows: int) -> None:
        """Give every row of the embedding a token."""
        if len(self.tokens) > rows:
            raise LinnixError(
                f"the tokenizer has {len(self.tokens):,} tokens, and the model {rows:,}",
                hint="are both of the same model?",
            )
        for number in range(len(self.tokens), rows):
            self.tokens.append(f"[PAD{number}]")
            self.kinds.append(Kind.UNUSED)
            if self.scores is not None:
                self.scores.append(-10000.0)


def tokenizer_folder(*folders: Path) -> Path:
    """The first folder with a tokenizer: that of an adapter goes before its base's."""
    for folder in folders:
        if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            return folder
    raise LinnixError(
        f"there is neither tokenizer.json nor tokenizer.model in {folders[-1]}",
        hint="tokenizer.save_pretrained() writes them",
    )


def read_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer in a folder. Raises `LinnixError`, `NotSupported` where it is another kind."""
    try:
        if (folder / "tokenizer.json").is_file():
            tree = read_json(folder / "tokenizer.json")
            if not tree["model"].get("byte_fallback"):
                return _byte_level(tree)
            if not (folder / "tokenizer.model").is_file():
                return _with_fallback(tree)
        return _sentencepiece(folder)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, struct.error) as error:
        raise LinnixError(
            f"the tokenizer in {folder} is not as it must be ({type(error).__name__}: {error})"
        ) from error


# --- tokenizer.json -------------------------------------------------------------------

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"

#: The regular expression of a pre-tokenizer, whether whole words that are in the vocabulary
#: are taken without merging, and llama.cpp's name for both.
_SPLITS = {
    (f"{_CONTRACTIONS}|{_WORD}|\\p{{N}}{{1,3}}|{_REST}", True): "llama-bpe",
    (f"{_CONTRACTIONS}|{_WORD}|\\p{{N}}{{1,3}}|{_REST}", False): "smaug-bpe",
    (f"{_CONTRACTIONS}|{_WORD}|\\p{{N}}|{_REST}", False): "qwen2",
}


def _byte_level(tree: Mapping[str, Any]) -> Vocabulary:
    model = tree["model"]
    if model["type"] != "BPE":
        raise NotSupported(f"tokenizers of the kind {printable(str(model['type']), 40)!r}")
    tokens, kinds = _tokens(tree, model)
    return Vocabulary("gpt2", _pre_tokenizer(tree, bool(model.get("ignore_merges"))), tokens, kinds)


def _pre_tokenizer(tree: Mapping[str, Any], whole_words: bool) -> str:
    """llama.cpp's name for how text is cut before the merges; `NotSupported` if it has none."""
    found = tree["pre_tokenizer"] or {}
    steps = found["pretokenizers"] if found.get("type") == "Sequence" else [found]
    kinds = [step.get("type") for step in steps]
    *before, last = steps
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not last.get("use_regex", True) and kinds == ["Split", "ByteLevel"]:
            split = before[0]
            name = _SPLITS.get((split["pattern"].get("Regex"), whole_words))
            if name and split.get("behavior") == "Isolated" and not split.get("invert"):
                return name
        elif kinds == ["ByteLevel"] and not whole_words:
            return "gpt-2"
        elif (
            kinds == ["Digits", "ByteLevel"] and before[0]["individual_digits"] and not whole_words
        ):
            return "smollm"
    shown = " + ".join(str(kind) for kind in kinds)
    raise NotSupported(
        f"the pre-tokenizer of tokenizer.json ({printable(shown, 60)}) is none that is known here"
    )


def _tokens(tree: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[list[str], list[Kind]]:
    """The tokens by id, those that were added with their kind."""
    by_id: dict[int, tuple[str, Kind]] = {
        number: (token, Kind.NORMAL) for token, number in model["vocab"].items()
    }
    for added in tree.get("added_tokens") or ():
        by_id[added["id"]] = (
            added["content"],
            _added_kind(added["content"], added.get("special")),
        )
    tokens, kinds = [], []
    if min(by_id) < 0 or max(by_id) > 2 * len(by_id) + 1024:
        raise ValueError("its ids are mostly gaps")
    for number in range(max(by_id) + 1):
        token, kind = by_id.get(number, (f"[PAD{number}]", Kind.UNUSED))
        tokens.append(token)
        kinds.append(kind)
    return tokens, kinds


#: Control tokens that some models call ordinary, as llama.cpp's converter knows them.
_LOOKS = re.compile(
    r"<\|.*\|>|<\N{FULLWIDTH VERTICAL LINE}.*\N{FULLWIDTH VERTICAL LINE}>|<unused.*>"
    r"|<pad>|<mask>|<2mass>|\[@BOS@\]",
    re.DOTALL,
)


def _added_kind(content: str, special: object = False) -> Kind:
    """Control tokens are no text; whatever else was added is found in every text."""
    return Kind.CONTROL if special or _LOOKS.fullmatch(content) else Kind.USER_DEFINED


def _with_fallback(tree: Mapping[str, Any]) -> Vocabulary:
    """sentencepiece's BPE that became a tokenizer.json: the scores are the order of the merges."""
    model = tree["model"]
    tokens, kinds = _tokens(tree, model)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    for number, token in enumerate(tokens):
        if kinds[number] is Kind.NORMAL and _is_byte(token):
            kinds[number] = Kind.BYTE
        elif token == model.get("unk_token"):
            kinds[number] = Kind.UNKNOWN
    scores = [-float(ranks.get(token, len(ranks))) for token in tokens]
    return Vocabulary("llama", "default", tokens, kinds, scores, _puts_space(tree))


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _puts_space(tree: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text."""
    normalizer = tree.get("normalizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer]), tree.get("pre_tokenizer") or {}]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


# --- tokenizer.model ------------------------------------------------------------------

#: Fields of sentencepiece's ModelProto (google/sentencepiece, sentencepiece_model.proto).
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _DUMMY_PREFIX = 3, 3
_UNIGRAM, _BPE = 1, 2


def _sentencepiece(folder: Path) -> Vocabulary:
    tokens, kinds, scores = [], [], []
    model_type, adds_space = _UNIGRAM, True
    for number, value in _fields((folder / "tokenizer.model").read_bytes()):
        if number == _PIECES:
            piece = dict(_fields(value))
            tokens.append(piece[_PIECE].decode())
            scores.append(struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0])
            kinds.append(Kind(piece.get(_TYPE, Kind.NORMAL)))
        elif number == _TRAINER:
            model_type = dict(_fields(value)).get(_MODEL_TYPE, _UNIGRAM)
        elif number == _NORMALIZER:
            adds_space = bool(dict(_fields(value)).get(_DUMMY_PREFIX, 1))
    if model_type != _BPE or not tokens:
        raise NotSupported("tokenizer.model is no BPE of sentencepiece")
    _add(folder, tokens, kinds, scores)
    config = tokenizer_config(folder)
    said = config.get("add_prefix_space")
    return Vocabulary(
        "llama", "default", tokens, kinds, scores, said if isinstance(said, bool) else adds_space
    )


def _add(folder: Path, tokens: list[str], kinds: list[Kind], scores: list[float]) -> None:
    """Tokens that were added to a sentencepiece model later."""
    added: dict[int, tuple[str, Kind]] = {}
    path = folder / "added_tokens.json"
    if path.is_file():
        for token, number in read_json(path).items():
            added[number] = (token, _added_kind(token))
    for key, said in (tokenizer_config(folder).get("added_tokens_decoder") or {}).items():
        added[int(key)] = (said["content"], _added_kind(said["content"], said.get("special")))
    for number, (token, kind) in sorted(added.items()):
        if not 0 <= number <= len(tokens):
            raise LinnixError(f"the token {printable(token, 60)!r} was added with a gap before it")
        if number == len(tokens):
            tokens.append(token)
            kinds.append(kind)
            scores.append(-1000.0)
        elif tokens[number] != token or kinds[number] is Kind.NORMAL:
            tokens[number], kinds[number], scores[number] = token, kind, -1000.0


def tokenizer_config(folder: Path) -> Mapping[str, Any]:
    """What tokenizer_config.json says, if it is there."""
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: numbers as int, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError("it is no protobuf message")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no protobuf message")
