"""A training run becomes a registered model, with what its own files say of it.

Read are ``metadata.json`` (hafs), ``trainer_state.json`` and ``all_results.json`` (transformers),
``adapter_config.json`` (PEFT) and ``config.json``; what is given explicitly goes before them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linnix_core import LinnixError
from linnix_plugin_models.files import Files
from linnix_plugin_models.formats import check_weights, format_of
from linnix_plugin_models.paths import CrossPlatformPath
from linnix_plugin_models.places import Place, find_place
from linnix_plugin_models.registry import Artifact, Model, ModelFile, ModelRegistry
from linnix_plugin_models.syncfile import SyncFile, read_sync_file
from linnix_plugin_models.transfer import Broken, LocalSource, Progress, hash_files

__all__ = [
    "METADATA_FILES",
    "described_by",
    "measure",
    "model_id_of",
    "read_metadata",
    "register_training_run",
]

#: Files of a run that are read, never more than this much of each.
METADATA_FILES = (
    "metadata.json",
    "trainer_state.json",
    "all_results.json",
    "adapter_config.json",
    "config.json",
)
MAX_METADATA_BYTES = 64 * 2**20


def register_training_run(
    model_path: Path | str,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    location: str | None = None,
    *,
    registry: ModelRegistry | None = None,
    sync: SyncFile | None = None,
    model_id: str | None = None,
    hashes: bool | None = None,
    progress: Progress | None = None,
    **known: Any,
) -> Model:
    """Register what a training run has written to ``model_path``.

    ``config`` may hold display_name, base_model, role, group, dataset, dataset_path, lora,
    hyperparameters, hardware and device, ``metrics`` duration_minutes, the numbers of samples,
    quality, loss, best_loss, eval_loss and perplexity, as the training of hafs gives them.
    ``location`` is where ``model_path`` is: this machine unless told. Its files are read for the
    rest, from here, through a mount or over SSH, and hashed if they are here. Raises
    `LinnixError`.
    """
    place = find_place(str(model_path), location, sync)
    config, metrics = dict(config or {}), dict(metrics or {})
    read: dict[str, Any] = {}
    artifacts: tuple[Artifact, ...] = ()
    if place.local is not None and place.local.exists():
        read = described_by(read_metadata(place.local))
        do_hash = place.is_here if hashes is None else hashes
        artifacts = (measure(place.local, place.location, place.path, do_hash, progress),)
    elif place.host is not None and place.remote is not None:
        read, artifacts = _asked_over_ssh(place, sync or read_sync_file())
    elif place.is_here:
        raise LinnixError(
            f"there is nothing at {place.path}",
            hint="if it is on another machine, say so with --location",
        )
    given = _given(config, metrics)
    facts = dict(read)
    for more in (given, known):
        facts.update({key: value for key, value in more.items() if _says_something(value)})
    read_from = facts.pop("metrics_files", None)
    return (registry or Files().registry).register(
        model_id or model_id_of(place.path),
        location=place.location,
        path=place.path,
        artifacts=artifacts,
        metrics={"read_from": read_from} if read_from else {},
        **facts,
    )


def _asked_over_ssh(place: Place, sync: SyncFile) -> tuple[dict[str, Any], tuple[Artifact, ...]]:
    """What a host says of a run; nothing where it cannot be reached now.

    Raises `LinnixError` where it can, and has no such run.
    """
    from linnix_plugin_models.sftp import SftpSource

    assert place.host is not None
    assert place.remote is not None
    try:
        source = SftpSource(place.host, sync.preferences, place.remote)
    except Broken:
        return {}, ()
    try:
        entries = source.entries()
        files = {
            entry.path: b"".join(source.read(entry, 0))
            for entry in entries
            if entry.path in METADATA_FILES and (entry.size or 0) <= MAX_METADATA_BYTES
        }
    finally:
        source.close()
    artifact = Artifact(
        location=place.location,
        path=place.path,
        format=format_of(entry.path for entry in entries),
        files=tuple(ModelFile(entry.path, entry.size or 0) for entry in entries),
    )
    return described_by(files), (artifact,) if entries else ()


def _says_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {}, ())


def model_id_of(path: str) -> str:
    """The last part of a path, without what no id may hold."""
    name = CrossPlatformPath(path).name
    name = re.sub(r"\.(gguf|safetensors)$", "", name)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:128] or "model"


def measure(
    local: Path, location: str, path: str, hashes: bool, progress: Progress | None = None
) -> Artifact:
    """The files of a model, with their digests where ``hashes``; headers are checked."""
    source = LocalSource(local)
    entries = source.entries()
    if not entries:
        raise LinnixError(f"there is no file in {local}")
    quantization = None
    for entry in entries:
        weights = check_weights(local if source.is_file else local / entry.path)
        if weights is not None and weights.quantization is not None:
            quantization = weights.quantization
    files = (
        hash_files(local, entries, progress)
        if hashes
        else tuple(ModelFile(entry.path, entry.size or 0) for entry in entries)
    )
    return Artifact(
        location=location,
        path=path,
        format=format_of(entry.path for entry in entries),
        quantization=quantization,
        files=files,
    )


def read_metadata(folder: Path) -> dict[str, bytes]:
    """The `METADATA_FILES` in a folder, those of a reasonable size."""
    found = {}
    for name in METADATA_FILES:
        path = folder / name
        if folder.is_dir() and path.is_file() and path.stat().st_size <= MAX_METADATA_BYTES:
            found[name] = path.read_bytes()
    return found


def _given(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    given = {
        key: config.get(key)
        for key in ("display_name", "base_model", "role", "group", "dataset_path", "hardware",
                    "device", "hyperparameters", "git_commit", "training_date", "notes")
    }  # fmt: skip
    return {
        **given,
        "dataset_name": config.get("dataset") or config.get("dataset_name"),
        "lora_config": config.get("lora") or config.get("lora_config"),
        "training_duration_minutes": metrics.get("duration_minutes"),
        "train_samples": metrics.get("train_samples"),
        "val_samples": metrics.get("val_samples"),
        "test_samples": metrics.get("test_samples"),
        "dataset_quality": metrics.get("quality"),
        "final_loss": _number(metrics.get("loss", metrics.get("final_loss"))),
        "best_loss": _number(metrics.get("best_loss")),
        "eval_loss": _number(metrics.get("eval_loss")),
        "perplexity": _number(metrics.get("perplexity")),
    }


def described_by(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Keys of the registry from the contents of `METADATA_FILES`; what is no JSON is left out."""
    read: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError):
            continue
        if isinstance(tree, dict):
            read[name] = tree
    facts: dict[str, Any] = {}
    for reader, name in (
        (_of_config, "config.json"),
        (_of_adapter, "adapter_config.json"),
        (_of_results, "all_results.json"),
        (_of_trainer, "trainer_state.json"),
        (_of_hafs, "metadata.json"),
    ):
        if name in read:
            found = reader(read[name])
            facts.update({k: v for k, v in found.items() if v not in (None, "", {}, [])})
    if facts:
        facts["metrics_files"] = sorted(read)
    return facts


def _of_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {"base_model": _text(tree.get("_name_or_path"))}


def _of_adapter(tree: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("r", "lora_alpha", "target_modules", "lora_dropout", "peft_type")
    base = _text(tree.get("base_model_name_or_path"))
    return {
        "base_model": base,
        "lora_config": {key: tree[key] for key in keys if key in tree},
        "lineage": {"adapter_of": base} if base else {},
    }


def _of_results(tree: Mapping[str, Any]) -> dict[str, Any]:
    runtime = _number(tree.get("train_runtime"))
    return {
        "final_loss": _number(tree.get("train_loss")),
        "eval_loss": _number(tree.get("eval_loss")),
        "perplexity": _number(tree.get("perplexity")),
        "train_samples": _count(tree.get("train_samples")),
        "val_samples": _count(tree.get("eval_samples")),
        "training_duration_minutes": round(runtime / 60) if runtime else None,
    }


def _of_trainer(tree: Mapping[str, Any]) -> dict[str, Any]:
    log = tree.get("log_history")
    steps = [step for step in log if isinstance(step, dict)] if isinstance(log, list) else []
    losses = [loss for step in steps if (loss := _number(step.get("loss"))) is not None]
    evaluated = [loss for step in steps if (loss := _number(step.get("eval_loss"))) is not None]
    best = _number(tree.get("best_metric")) if evaluated else None
    return {
        "final_loss": losses[-1] if losses else None,
        "best_loss": best if best is not None else min(losses, default=None),
        "eval_loss": evaluated[-1] if evaluated else None,
        "checkpoint_path": _text(tree.get("best_model_checkpoint")),
        "hyperparameters": {
            key: tree[key]
            for key in ("num_train_epochs", "max_steps", "train_batch_size")
            if isinstance(tree.get(key), int | float)
        },
    }


def _of_hafs(tree: Mapping[str, Any]) -> dict[str, Any]:
    expert, model, run, hardware, made = (
        _table(tree.get(key)) for key in ("expert", "model", "training", "hardware", "metadata")
    )
    lora = {"r": model.get("lora_rank"), "lora_alpha": model.get("lora_alpha")}
    hyper = {
        key: run[key]
        for key in ("num_epochs", "batch_size", "gradient_accumulation", "learning_rate",
                    "sequence_length")
        if key in run
    }  # fmt: skip
    return {
        "display_name": _text(expert.get("name")),
        "role": _text(expert.get("role")),
        "group": _text(expert.get("group")),
        "base_model": _text(model.get("base")),
        "lora_config": {key: value for key, value in lora.items() if value is not None},
        "dataset_name": _text(run.get("dataset")),
        "train_samples": _count(run.get("num_samples")),
        "hyperparameters": hyper,
        "training_duration_minutes": _count(run.get("duration_minutes")),
        "hardware": _text(hardware.get("name")),
        "device": _text(hardware.get("device")),
        "training_date": _text(made.get("created")),
        "git_commit": _text(made.get("git_commit")),
    }


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else round(number)
