"""Models to this machine: from a mount first, then over SSH, or from the web."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from linnix_core import LinnixError
from linnix_plugin_models.formats import check_weights, format_of
from linnix_plugin_models.places import Place, find_place
from linnix_plugin_models.registry import (
    Artifact,
    Model,
    ModelFile,
    ModelRegistry,
    check_id,
)
from linnix_plugin_models.syncfile import SyncFile, this_location
from linnix_plugin_models.training import described_by, model_id_of, read_metadata
from linnix_plugin_models.transfer import (
    LocalSource,
    Progress,
    Received,
    Source,
    fetch,
    is_unchanged,
)

__all__ = ["Pulled", "pull", "pull_from_web"]


@attrs.frozen(kw_only=True)
class Pulled:
    """A model that is here now, and how it came."""

    model: Model
    path: Path
    #: ``here``, ``mount``, ``sftp``, ``hub`` or ``http``.
    method: str
    size: int
    refused: tuple[str, ...] = ()


def pull(
    registry: ModelRegistry,
    sync: SyncFile,
    name: str,
    *,
    source: str | None = None,
    destination: Path | None = None,
    allow_pickle: bool = False,
    again: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Bring a registered model to this machine. Raises `LinnixError`."""
    model = registry.get(name)
    here = this_location()
    check_id(model.model_id)
    if not again and source is None and (there := _here(model, here, destination)) is not None:
        return Pulled(model=model, path=Path(there.path), method="here", size=there.size)
    location = _location(model, here, source)
    place = find_place(model.locations[location], location, sync)
    known = model.artifact(location)
    expected = {f.path: f for f in known.files if f.size} if known and known.files else None
    target = _folder(sync, destination, model.model_id)
    ours = {file.path for a in model.artifacts if Path(a.path) == target for file in a.files}
    received, method = _bring(place, sync, target, expected, ours, allow_pickle, progress)
    updated = _note(registry, model.model_id, here, received, known)
    return Pulled(
        model=updated,
        path=received.path,
        method=method,
        size=sum(f.size for f in received.files),
        refused=received.refused,
    )


def pull_from_web(
    registry: ModelRegistry,
    sync: SyncFile,
    address: str,
    *,
    model_id: str | None = None,
    destination: Path | None = None,
    include: Sequence[str] = (),
    sha256: str | None = None,
    allow_pickle: bool = False,
    progress: Progress | None = None,
    **known: Any,
) -> Pulled:
    """Bring ``hf:OWNER/NAME[/FILE]`` or ``https://…`` here and register it."""
    from linnix_plugin_models.http import HttpSource, HubReference, HubSource, file_name

    connect: Callable[[], Source]
    if address.startswith("hf:"):
        reference = HubReference.parse(address)
        method, file = "hub", (reference.file or "").rpartition("/")[2] or None
        model_id = model_id or model_id_of(file or reference.repo)

        def connect() -> Source:
            return HubSource(reference, include)
    else:
        method, file = "http", file_name(address)
        model_id = model_id or model_id_of(file)

        def connect() -> Source:
            return HttpSource(address, sha256=sha256)

    check_id(model_id)
    target = _folder(sync, destination, model_id)
    known_here = registry.get_model(model_id)
    artifacts = known_here.artifacts if known_here else ()
    received = fetch(
        connect,
        target / file if file else target,
        replaceable={file.path for a in artifacts if Path(a.path) == target for file in a.files},
        allow_pickle=allow_pickle,
        retries=sync.preferences.retries,
        progress=progress,
    )
    read = described_by(read_metadata(received.path))
    read.pop("metrics_files", None)
    model = registry.register(
        model_id,
        location=this_location(),
        path=str(received.path),
        artifacts=(_artifact(received, this_location()),),
        source=address,
        **{**read, **known},
    )
    size = sum(f.size for f in received.files)
    return Pulled(
        model=model, path=received.path, method=method, size=size, refused=received.refused
    )


def _folder(sync: SyncFile, chosen: Path | None, model_id: str) -> Path:
    """A folder of its own for every model, wherever that is."""
    return (chosen or sync.models_dir()).expanduser().absolute() / model_id


def _here(model: Model, here: str, destination: Path | None) -> Artifact | None:
    """What is on this machine already and still has the sizes that were noted."""
    wanted = model.locations.get(here)
    if destination is not None or wanted is None:
        return None
    for artifact in model.artifacts:
        if artifact.location == here and artifact.path == wanted and is_unchanged(artifact):
            return artifact
    return None


def _location(model: Model, here: str, source: str | None) -> str:
    places = {k: v for k, v in model.locations.items() if k != here}
    if source is not None:
        if source not in places:
            raise LinnixError(
                f"{model.model_id} is not registered at {source}",
                hint=f"it is at: {', '.join(places) or 'no other place'}",
            )
        return source
    if not places:
        raise LinnixError(
            f"{model.model_id} is registered at no other place than this machine",
            hint="linnix models register adds one: PATH --id … --location …",
        )
    primary = str(model["primary_location"])
    return primary if primary in places else next(iter(places))


def _bring(
    place: Place,
    sync: SyncFile,
    target: Path,
    expected: dict[str, ModelFile] | None,
    ours: set[str],
    allow_pickle: bool,
    progress: Progress | None,
) -> tuple[Received, str]:
    preferences = sync.preferences

    def bring(connect: Callable[[], Source], method: str) -> tuple[Received, str]:
        # One file goes into the folder; whether it is one, only the source knows.
        first = [connect()]
        try:
            final = target / first[0].entries()[0].path if first[0].is_file else target
        except BaseException:
            first[0].close()
            raise
        received = fetch(
            lambda: first.pop() if first else connect(),
            final,
            expected=expected,
            replaceable=ours,
            allow_pickle=allow_pickle,
            retries=preferences.retries,
            progress=progress,
        )
        return received, method

    if preferences.transfer_method == "mount" and place.local is not None:
        local = place.local
        if local.exists():
            return bring(lambda: LocalSource(local), "mount")
    host, remote = place.host, place.remote
    if host is None or remote is None:
        raise LinnixError(
            f"there is no way to {place.location}: no mount shows {place.path}, and no host is it",
            hint=f"add [hosts.{place.location}] or a mount to sync.toml; "
            "linnix models paths shows what there is",
        )
    from linnix_plugin_models.sftp import SftpSource

    return bring(lambda: SftpSource(host, preferences, remote), "sftp")


def _note(
    registry: ModelRegistry, model_id: str, here: str, received: Received, known: Artifact | None
) -> Model:
    """Register what arrived, here and with the digests that it has at its source."""
    artifact = _artifact(received, here)

    def note(model: Model) -> None:
        model.flat["locations"] = {**model.locations, here: str(received.path)}
        model.put_artifact(artifact)
        if known is not None and not any(file.sha256 for file in known.files):
            model.put_artifact(msgspec.structs.replace(known, files=artifact.files))

    return registry.update(model_id, note)


def _artifact(received: Received, here: str) -> Artifact:
    quantization = None
    for file in received.files:
        path = received.path if received.path.is_file() else received.path / file.path
        weights = check_weights(path)
        if weights is not None and weights.quantization is not None:
            quantization = weights.quantization
    return Artifact(
        location=here,
        path=str(received.path),
        format=format_of(file.path for file in received.files),
        quantization=quantization,
        files=received.files,
    )
