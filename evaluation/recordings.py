"""Recordings, and what rules say about them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from linnix_core import Alert, Loss, Record, decode

__all__ = ["Recording", "recordings", "replay"]


@attrs.frozen
class Recording:
    """One folder that `evaluation.recorder.record` wrote."""

    folder: Path
    truth: dict[str, Any]

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.name

    def records(self) -> Iterator[Record]:
        """What the collectors saw, in order."""
        try:
            with gzip.open(self.folder / "records.jsonl.gz", "rb") as file:
                for line in file:
                    record = decode(line)
                    if not isinstance(record, Alert):
                        yield record  # type: ignore[misc]
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{self.folder}: the recording is damaged: {error}") from None


def recordings(root: Path) -> list[Recording]:
    """All that are complete, by name."""
    found = (root / "recordings").glob("*/truth.json")
    return [Recording(path.parent, json.loads(path.read_text())) for path in sorted(found)]


@attrs.frozen
class Replayed:
    """The alerts of each rule file, and what the recording had."""

    alerts: tuple[tuple[Alert, ...], ...]
    records: int
    events: int
    lost: int


def replay(recording: Recording, rule_files: Sequence[Path | None]) -> Replayed:
    """Judge a recording by several files of rules; None is the shipped one."""
    from linnix_plugin_rules.engine import Engine
    from linnix_plugin_rules.rulefile import read_rules

    engines = [Engine(read_rules(path).rules) for path in rule_files]
    alerts: list[list[Alert]] = [[] for _ in engines]
    count = events = lost = 0
    batch: list[Record] = []
    for record in recording.records():
        count += 1
        events += record.type == "event"
        if type(record) is Loss and record.component.startswith("collectors."):
            lost += record.lost
        batch.append(record)
        if len(batch) == 256:
            for engine, raised in zip(engines, alerts, strict=True):
                raised.extend(engine.handle(batch))
            batch = []
    for engine, raised in zip(engines, alerts, strict=True):
        raised.extend(engine.handle(batch))
    return Replayed(tuple(map(tuple, alerts)), count, events, lost)
