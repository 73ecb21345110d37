"""Labelled series as the Numenta benchmark keeps them: CSV files and a ``windows.json``."""

from __future__ import annotations

import csv
import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from linnix_core import LinnixError, printable

__all__ = ["Labelled", "LabelsWrong", "read_labelled"]

#: No larger file is read, and no series of more points.
MAX_FILE_BYTES = 256 * 2**20
MAX_POINTS = 5_000_000

_MAX_SHOWN = 80


class LabelsWrong(LinnixError):
    """A folder of series that cannot be scored; the message names the file and the line."""

    exit_code = 2


@attrs.frozen
class Labelled:
    """One series: moments in seconds since the epoch, values, windows by first and last index."""

    name: str
    times: list[float]
    values: list[float]
    windows: list[tuple[int, int]]


def read_labelled(folder: Path) -> tuple[list[Labelled], list[str]]:
    """The series that ``windows.json`` names, and the names of those that are not there.

    A timestamp without a zone is taken for UTC. Raises `LabelsWrong`.
    """
    labels = _read_labels(folder / "windows.json")
    found, missing = [], []
    root = folder.resolve()
    for name, limits in sorted(labels.items()):
        path = folder / name
        if not path.resolve().is_relative_to(root):
            raise LabelsWrong(f"windows.json: {_shown(name)} is outside of the folder")
        if path.is_file():
            found.append(_read_series(path, name, limits))
        else:
            missing.append(name)
    if not found:
        raise LabelsWrong(
            f"none of the series of {_shown(str(folder / 'windows.json'))} is there",
            hint="name the folder that windows.json and the folders of CSV files lie in",
        )
    return found, missing


def _read_labels(path: Path) -> dict[str, Any]:
    shown = _shown(str(path))
    try:
        labels = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise LabelsWrong(f"{shown} is not JSON: {_shown(str(error))}") from None
    if not isinstance(labels, dict) or not labels:
        raise LabelsWrong(f"{shown} has to map the name of each series to its windows")
    return labels


def _read_series(path: Path, name: str, limits: object) -> Labelled:
    times: list[float] = []
    values: list[float] = []
    rows = csv.reader(_text(path).splitlines())
    shown = _shown(name)
    try:
        header = [column.strip() for column in next(rows, [])]
        if header[:2] != ["timestamp", "value"]:
            raise LabelsWrong(f"{shown}:1: expected the columns timestamp and value")
        for row in rows:
            if not row:
                continue
            if len(values) >= MAX_POINTS:
                raise LabelsWrong(f"{shown}: more than {MAX_POINTS} points")
            try:
                moment, value = _seconds(row[0]), float(row[1])
            except (IndexError, ValueError, OverflowError):
                moment, value = 0.0, math.nan
            if not math.isfinite(value):
                cells = _shown(",".join(row))
                raise LabelsWrong(f"{shown}:{rows.line_num}: no timestamp and value: {cells}")
            times.append(moment)
            values.append(value)
    except csv.Error as error:
        raise LabelsWrong(f"{shown}:{rows.line_num}: {error}") from None
    if not values:
        raise LabelsWrong(f"{shown} has no points")
    return Labelled(name, times, values, _windows(shown, limits, times))


def _windows(shown: str, limits: object, times: list[float]) -> list[tuple[int, int]]:
    if not isinstance(limits, list):
        raise LabelsWrong(f"windows.json: {shown} needs a list of windows")
    windows = []
    for pair in limits:
        try:
            start, end = (_seconds(each) for each in pair)
        except (TypeError, ValueError, OverflowError):
            raise LabelsWrong(
                f"windows.json: {shown} needs windows of two timestamps, "
                f"got {_shown(json.dumps(pair))}"
            ) from None
        within = [i for i, moment in enumerate(times) if start <= moment <= end]
        if not within:
            raise LabelsWrong(
                f"windows.json: no point of {shown} lies in the window {_shown(json.dumps(pair))}"
            )
        windows.append((within[0], within[-1]))
    windows.sort()
    for before, after in itertools.pairwise(windows):
        if after[0] <= before[1]:
            raise LabelsWrong(f"windows.json: two windows of {shown} overlap")
    return windows


def _seconds(text: object) -> float:
    if not isinstance(text, str):
        raise ValueError("a timestamp is text")
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise LabelsWrong(f"{_shown(str(path))} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise LabelsWrong(
            f"cannot read {_shown(str(path))}: {error.strerror}",
            hint="name the folder that windows.json and the folders of CSV files lie in",
        ) from None
    except UnicodeDecodeError:
        raise LabelsWrong(f"{_shown(str(path))} is not text") from None


def _shown(text: str) -> str:
    return printable(text, _MAX_SHOWN)
