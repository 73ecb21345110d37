"""What a file of weights is, read from its header alone and believed only if it holds.

Safetensors and GGUF are checked against the size of the file before anything opens them;
pickles, which run code when they are loaded, are told apart by name and by content. Every
loop and allocation is bounded by constants below, whatever a file claims.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from linnix_core import LinnixError, printable

__all__ = [
    "GGUF_FILE_TYPES",
    "UnsafeWeights",
    "Weights",
    "check_weights",
    "format_of",
    "is_pickle_name",
    "looks_like_pickle",
    "refuse_pickle",
]

#: The largest headers in the wild take a few MiB.
MAX_SAFETENSORS_HEADER = 32 * 2**20
MAX_GGUF_HEADER = 64 * 2**20
MAX_TENSORS = 2**20
MAX_PAIRS = 2**16
MAX_DEPTH = 4

#: Safetensors' types and their bits (huggingface/safetensors, `Dtype`).
_SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

#: ``general.file_type`` of GGUF (ggml-org/ggml, docs/gguf.md).
GGUF_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4_MOE",
}  # fmt: skip

#: GGML's types: values and bytes of a block (ggml-org/ggml, gguf constants).
_GGML_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),
    14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1),
    25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

#: GGUF's metadata types of a fixed size, as `struct` writes them.
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9

_PICKLE_SUFFIXES = {
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npz", ".npy",
}  # fmt: skip
_FORMATS = {".gguf": "gguf", ".safetensors": "safetensors", ".onnx": "onnx"}


class UnsafeWeights(LinnixError):
    """A file of weights that is damaged, hostile, or runs code when it is loaded."""


@attrs.frozen
class Weights:
    """What the header of a file of weights says."""

    format: str
    tensors: int
    architecture: str | None = None
    quantization: str | None = None
    name: str | None = None
    has_chat_template: bool = False


def format_of(names: Iterable[str]) -> str:
    """The format of a model with files of these names, as the registry calls it."""
    found = {Path(name).suffix.lower() for name in names}
    for suffix, format_ in _FORMATS.items():
        if suffix in found:
            return format_
    return "pytorch"


def is_pickle_name(name: str) -> bool:
    """Whether a file of this name is usually a pickle, or may hold one."""
    return Path(name).suffix.lower() in _PICKLE_SUFFIXES


def looks_like_pickle(path: Path) -> bool:
    """Whether a file begins like a pickle (protocol 2 and later) or like PyTorch's archive."""
    with path.open("rb") as file:
        begin = file.read(4)
    return (begin[:1] == b"\x80" and begin[1:2] in b"\2\3\4\5") or begin == b"PK\3\4"


def refuse_pickle(path: Path) -> None:
    """Raise `UnsafeWeights` for a file that begins like a pickle, whatever it is called."""
    if looks_like_pickle(path):
        raise UnsafeWeights(
            f"{printable(path.name)} is a pickle or an archive: loading it may run code",
            hint="say --allow-pickle if you trust where it comes from",
        )


def check_weights(path: Path) -> Weights | None:
    """Read the header of a safetensors or GGUF file; None for other files.

    Raises `UnsafeWeights` for whatever does not hold.
    """
    suffix = path.suffix.lower()
    if suffix not in (".gguf", ".safetensors"):
        return None
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _safetensors(file, size) if suffix == ".safetensors" else _gguf(file, size)
    except _Broken as error:
        raise UnsafeWeights(
            f"{printable(str(path))} is no {suffix[1:]} file that could be used: {error}",
            hint="get it again, or from somewhere else",
        ) from None


class _Broken(ValueError):
    """What is wrong, as a clause."""


# --- safetensors ----------------------------------------------------------------------


def _safetensors(file: BinaryIO, size: int) -> Weights:
    begin = file.read(8)
    if len(begin) < 8:
        raise _Broken("it is shorter than its header")
    (length,) = struct.unpack("<Q", begin)
    if length > MAX_SAFETENSORS_HEADER:
        raise _Broken(f"its header would take {length:,} bytes")
    if 8 + length > size:
        raise _Broken("it ends within its header")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise _Broken("its header does not begin with {")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _Broken(f"its header is no JSON ({type(error).__name__}: {error})") from None
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _Broken("its __metadata__ holds more than texts")
    if len(header) > MAX_TENSORS:
        raise _Broken(f"it has {len(header):,} tensors")
    end = 0
    for name, begin_at, end_at in sorted(map(_tensor, header.items()), key=lambda t: t[1:]):
        if begin_at != end:
            raise _Broken(f"the tensor {printable(name, 60)!r} leaves a gap or overlaps")
        end = end_at
    if 8 + length + end != size:
        raise _Broken(f"its tensors take {end:,} bytes and {size - 8 - length:,} are there")
    return Weights("safetensors", len(header))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Broken("a name stands twice in its header")
    return made


def _tensor(item: tuple[str, Any]) -> tuple[str, int, int]:
    name, tensor = item
    shown = printable(name, 60)
    try:
        bits, shape = _SAFETENSORS_BITS[tensor["dtype"]], tensor["shape"]
        begin, end = tensor["data_offsets"]
        numbers = (*shape, begin, end)
    except (KeyError, TypeError, ValueError):
        raise _Broken(f"the tensor {shown!r} is not described as it must be") from None
    if len(numbers) > 34 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise _Broken(f"the tensor {shown!r} has an impossible shape or place")
    count = 1
    for n in shape:
        count *= n
    if count * bits != (end - begin) * 8:
        raise _Broken(f"the tensor {shown!r} has another size than its shape")
    return name, begin, end


# --- GGUF -----------------------------------------------------------------------------


class _Reader:
    """Takes from a file as much as it has and the header may, and nothing more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = min(size, MAX_GGUF_HEADER)
        self._whole = size <= MAX_GGUF_HEADER
        self.position = 0

    def take(self, count: int) -> bytes:
        self._spend(count)
        taken = self._file.read(count)
        if len(taken) < count:
            raise _Broken("it ends within its header")
        return taken

    def skip(self, count: int) -> None:
        self._spend(count)
        self._file.seek(count, 1)

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(kind, self.take(struct.calcsize(kind)))
        return int(value)

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", "backslashreplace")

    def skip_text(self) -> None:
        self.skip(self.number("<Q"))

    def _spend(self, count: int) -> None:
        if count > self._left:
            raise _Broken(
                "it ends within its header"
                if self._whole
                else f"its header takes more than {MAX_GGUF_HEADER:,} bytes"
            )
        self._left -= count
        self.position += count


def _gguf(file: BinaryIO, size: int) -> Weights:
    reader = _Reader(file, size)
    if reader.take(4) != b"GGUF":
        raise _Broken("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in (2, 3):
        big = struct.unpack(">I", struct.pack("<I", version))[0]
        raise _Broken("it is big-endian" if big in (2, 3) else f"its version is {version}")
    tensors, pairs = reader.number("<Q"), reader.number("<Q")
    if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
        raise _Broken(f"it claims {tensors:,} tensors and {pairs:,} keys")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text()
        if key in metadata:
            raise _Broken(f"the key {printable(key, 60)!r} stands twice")
        metadata[key] = _metadata_value(reader, reader.number("<I"), 0)
    alignment = metadata.get("general.alignment", 32)
    if not (isinstance(alignment, int) and 8 <= alignment <= 2**16 and alignment % 8 == 0):
        raise _Broken(f"its alignment is {printable(str(alignment), 40)}")
    placed = [_gguf_tensor(reader) for _ in range(tensors)]
    start = -(-reader.position // alignment) * alignment
    for tensor, offset, length in placed:
        if offset % alignment:
            raise _Broken(f"the tensor {printable(tensor, 60)!r} is not aligned")
        if start + offset + length > size:
            raise _Broken(f"it ends within the tensor {printable(tensor, 60)!r}")
    architecture, name = metadata.get("general.architecture"), metadata.get("general.name")
    if not isinstance(architecture, str) or not architecture:
        raise _Broken("it names no architecture")
    return Weights(
        "gguf",
        tensors,
        architecture=architecture,
        quantization=_file_type(metadata.get("general.file_type")),
        name=name if isinstance(name, str) else None,
        has_chat_template="tokenizer.chat_template" in metadata,
    )


def _file_type(number: Any) -> str | None:
    return GGUF_FILE_TYPES.get(number) if isinstance(number, int) else None


def _metadata_value(reader: _Reader, kind: int, depth: int) -> Any:
    """A scalar or a text; of arrays only that they hold."""
    if kind in _SCALARS:
        (value,) = struct.unpack(_SCALARS[kind], reader.take(struct.calcsize(_SCALARS[kind])))
        return value
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY:
        raise _Broken(f"it has metadata of the unknown type {kind}")
    if depth == MAX_DEPTH:
        raise _Broken("its arrays are nested too deeply")
    item, count = reader.number("<I"), reader.number("<Q")
    if item in _SCALARS:
        reader.skip(count * struct.calcsize(_SCALARS[item]))
        return None
    for _ in range(count):  # each one spends at least eight bytes of a bounded header
        if item == _STRING:
            reader.skip_text()
        else:
            _metadata_value(reader, item, depth + 1)
    return None


def _gguf_tensor(reader: _Reader) -> tuple[str, int, int]:
    name = reader.text()
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= 4:
        raise _Broken(f"the tensor {printable(name, 60)!r} has {dimensions} dimensions")
    shape = [reader.number("<Q") for _ in range(dimensions)]
    kind, offset = reader.number("<I"), reader.number("<Q")
    count = 1
    for n in shape:
        count *= n
    if kind not in _GGML_BLOCKS:
        return name, offset, 0  # newer than this table: where it begins is all that can be told
    values, size = _GGML_BLOCKS[kind]
    if shape[0] % values:
        raise _Broken(f"a row of the tensor {printable(name, 60)!r} is no whole number of blocks")
    return name, offset, count // values * size
