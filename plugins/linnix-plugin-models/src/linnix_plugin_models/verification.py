"""Whether the files on this machine are what was registered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from linnix_core import LinnixError
from linnix_plugin_models.formats import UnsafeWeights, check_weights
from linnix_plugin_models.registry import Artifact, Model
from linnix_plugin_models.syncfile import this_location
from linnix_plugin_models.transfer import Entry, Progress, hash_files

__all__ = ["verify"]


def verify(
    models: Iterable[Model], progress: Progress | None = None
) -> tuple[list[dict[str, Any]], int]:
    """What is not as it was registered, and how many files were read."""
    here = this_location()
    problems: list[dict[str, Any]] = []
    checked = 0
    for model in models:
        artifacts = [a for a in model.artifacts if a.location == here]
        for artifact in artifacts:
            for file, path in _files(artifact):
                checked += 1
                reason = _wrong(file.size, file.sha256, path, progress)
                if reason:
                    problems.append(
                        {"model_id": model.model_id, "path": str(path), "reason": reason}
                    )
        unknown = model.locations.get(here)
        if unknown is not None and not artifacts:
            problems.append(
                {
                    "model_id": model.model_id,
                    "path": unknown,
                    "reason": "its files were never noted: register it again"
                    if Path(unknown).exists()
                    else "is not there",
                }
            )
    return problems, checked


def _files(artifact: Artifact) -> Iterable[tuple[Any, Path]]:
    root = Path(artifact.path)
    alone = len(artifact.files) == 1 and root.name == artifact.files[0].path
    for file in artifact.files:
        yield file, (root if alone and not root.is_dir() else root / file.path)


def _wrong(size: int, sha256: str | None, path: Path, progress: Progress | None) -> str | None:
    if not path.is_file():
        return "is not there"
    real = path.stat().st_size
    if real != size:
        return f"has {real:,} bytes instead of {size:,}"
    try:
        check_weights(path)
        if sha256 is None:
            return None
        (found,) = hash_files(path, [Entry(path.name, real)], progress)
    except (UnsafeWeights, OSError, LinnixError) as error:
        return str(error)
    return None if found.sha256 == sha256 else f"has the SHA-256 {found.sha256}"
