"""A checkpoint as Hugging Face lays it out: config.json, and weights in safetensors.

Files are memory-mapped and read in pieces of rows, so that no more than a piece is ever in
memory, however large a tensor is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from linnix_core import LinnixError, printable
from linnix_plugin_models import check_weights

__all__ = ["Array", "Checkpoint", "Tensor", "Weights", "pieces", "read_json"]

Array: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = "slice | NDArray[np.intp]"

#: Bytes of float32 that are in memory at once of one tensor.
PIECE_BYTES = 32 * 2**20

#: config.json and the files of tokenizers; the largest in the wild take 35 MB.
MAX_JSON_BYTES = 128 * 2**20

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Tensor(Protocol):
    """Something with rows; one row where it has one dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions, rows first."""

    @property
    def dtype(self) -> str:
        """``F32``, ``F16`` or ``BF16``: what holds its values without loss."""

    def read(self, rows: Rows) -> Array:
        """Some rows of it as float32; of a vector, some values."""


class Weights(Protocol):
    """Where tensors are found by name: a checkpoint, or one with an adapter merged into it."""

    def names(self) -> Sequence[str]:
        """The tensors that are there."""

    def tensor(self, name: str) -> Tensor:
        """One of them. Raises `LinnixError` where there is none of that name."""


def pieces(tensor: Tensor, order: NDArray[np.intp] | None = None) -> Iterator[tuple[int, Array]]:
    """A tensor in order, or in another one, piece by piece, each with where it begins."""
    count = tensor.shape[0]
    width = int(np.prod(tensor.shape[1:], dtype=np.int64))
    step = max(1, PIECE_BYTES // (4 * max(1, width)))
    for begin in range(0, count, step):
        rows = slice(begin, min(begin + step, count))
        yield begin, tensor.read(rows if order is None else order[rows])


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file. Raises `LinnixError`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise LinnixError(f"{path} is larger than such a file can be")
        tree = json.loads(path.read_bytes())
    except OSError as error:
        raise LinnixError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise LinnixError(f"{path} is no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise LinnixError(f"{path} holds no table")
    return tree


@attrs.frozen(eq=False)
class _Stored:
    """A tensor in a file that is mapped into memory."""

    shape: tuple[int, ...]
    dtype: str
    _data: NDArray[Any]

    def read(self, rows: Rows) -> Array:
        data = self._data[rows]
        if self.dtype != "BF16":
            return data.astype(np.float32)
        # A bfloat16 is the upper half of a float32.
        return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Checkpoint:
    """A folder with config.json and safetensors, or one file of them beside its config.json.

    Raises `LinnixError` for whatever is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path if path.is_dir() else path.parent
        if not (self.folder / "config.json").is_file():
            raise LinnixError(
                f"there is no config.json in {self.folder}",
                hint="a checkpoint is the folder that save_pretrained() writes",
            )
        self.config: Mapping[str, Any] = read_json(self.folder / "config.json")
        self._tensors: dict[str, _Stored] = {}
        for file in _files(self.folder) if path.is_dir() else [path]:
            self._tensors.update(open_safetensors(file))

    def names(self) -> Sequence[str]:
        """The tensors of all its files."""
        return list(self._tensors)

    def tensor(self, name: str) -> Tensor:
        """One of them. Raises `LinnixError`."""
        try:
            return self._tensors[name]
        except KeyError:
            raise LinnixError(
                f"the checkpoint in {self.folder} lacks the tensor {printable(name, 120)}",
                hint="was it copied whole?",
            ) from None


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        placed = read_json(index).get("weight_map")
        names = set(placed.values()) if isinstance(placed, dict) else set()
        # A name leads to a file in this folder and nowhere else.
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            raise LinnixError(f"{index} does not say which files there are")
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise LinnixError(
                f"{folder} lacks {printable(missing[0])}, of {len(names)} files of weights",
                hint="pull it again",
            )
        return [folder / name for name in sorted(names)]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    raise LinnixError(
        f"there is no model.safetensors in {folder}",
        hint="save_pretrained(…, safe_serialization=True) writes it; pickles are not read",
    )


def open_safetensors(path: Path) -> dict[str, _Stored]:
    """The tensors of one file, mapped into memory; its header is checked first."""
    check_weights(path)
    tensors = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if not header:
        raise LinnixError(f"{path} holds no tensor")
    if path.stat().st_size == 8 + length:
        raise LinnixError(f"the tensors of {path} hold nothing")
    data = np.memmap(path, mode="r", offset=8 + length)
    for name, said in header.items():
        if said["dtype"] not in _DTYPES:
            raise LinnixError(
                f"the tensor {printable(name, 80)} is stored as {said['dtype']}",
                hint="F32, F16 and BF16 are read: convert the checkpoint as it was before "
                "it was quantized",
            )
        begin, end = said["data_offsets"]
        shape = tuple(said["shape"])
        values = data[begin:end].view(_DTYPES[said["dtype"]]).reshape(shape)
        tensors[name] = _Stored(shape, said["dtype"], values)
    return tensors
