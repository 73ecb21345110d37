"""Replays what was recorded, several recordings at once, and adds up."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from evaluation.cases import Split
from evaluation.judging import Judged, judge
from evaluation.recorder import watch
from evaluation.recordings import Recording, recordings, replay
from evaluation.report import score, time_watched
from evaluation.schedule import sessions
from linnix_core import Alert, decode

__all__ = ["score_live", "score_recordings"]


def score_recordings(
    root: Path,
    rule_files: Mapping[str, Path | None],
    splits: Sequence[str],
    names: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """The figures of each file of rules, by split and name."""
    chosen = [
        each for each in recordings(root)
        if (not names or any(name in each.name for name in names))
        and any(case["split"] in splits for case in each.truth["cases"])
    ]  # fmt: skip
    if not chosen:
        raise SystemExit(f"{root}: no recording; make some with: python -m evaluation record")
    jobs = [(each, tuple(rule_files.values())) for each in chosen]
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, 4)) as pool:
        results = pool.map(_job, jobs, chunksize=1)
    found: dict[str, dict[str, Any]] = {}
    for split in splits:
        of_split = [
            (each, result) for each, result in zip(chosen, results, strict=True)
            if any(case["split"] == split for case in each.truth["cases"])
        ]  # fmt: skip
        time = time_watched(
            [each.truth for each, _ in of_split], split,
            sum(events for _, (_, events, _) in of_split),
            sum(lost for _, (_, _, lost) in of_split),
        )  # fmt: skip
        found[split] = {
            name: score([judged[n] for _, (judged, _, _) in of_split], time, split)
            for n, name in enumerate(rule_files)
        }
    return found


def score_live(
    root: Path, splits: Sequence[Split], first: int, count: int, rules: Path | None
) -> dict[str, dict[str, Any]]:
    """The figures of the agent itself, which judges while things happen."""
    live, judged = [], []
    for session in islice(sessions(splits, "incidents"), first - 1, first - 1 + count):
        one = watch(session.lanes, root, rules)
        alerts = []
        for came_ns, line in one.lines:
            record = decode(line)
            if isinstance(record, Alert):
                record.ts_ns = came_ns
                alerts.append(record)
        live.append(one)
        judged.append(judge(session.name, one.truth, alerts))
    return {
        split: {
            "live": score(judged, time_watched([one.truth for one in live], split, 0, 0), split)
        }
        for split in splits
    }


def _job(job: tuple[Recording, tuple[Path | None, ...]]) -> tuple[list[Judged], int, int]:
    recording, files = job
    played = replay(recording, files)
    judged = [judge(recording.name, recording.truth, alerts) for alerts in played.alerts]
    return judged, played.events, played.lost
