"""Conversion to another format by whichever distribution offers it.

A converter is a callable behind an entry point of the group ``linnix_plugin_models.converters``,
named after the format that it makes. It gets a `ConversionRequest` and gives a `Conversion`;
where the result goes, when it counts, and what is left after a failure is settled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import msgspec

from linnix_core import LinnixError, printable
from linnix_plugin_models.formats import check_weights
from linnix_plugin_models.registry import Artifact, Model, ModelRegistry, check_id
from linnix_plugin_models.syncfile import SyncFile, this_location
from linnix_plugin_models.transfer import LocalSource, hash_files, workplace

__all__ = ["GROUP", "Conversion", "ConversionRequest", "convert", "converters"]

#: The entry points of converters; the name is the format.
GROUP = "linnix_plugin_models.converters"

#: Who makes a format, for those who have nobody yet.
_DISTRIBUTIONS = {"gguf": "linnix-plugin-gguf"}

#: Quantizations of llama.cpp that are passed on; the others are typing mistakes.
QUANTIZATIONS = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
    "TQ1_0", "TQ2_0",
)  # fmt: skip


def _unseen(what: str, done: int, total: int | None) -> None:
    """Nobody looks."""


@attrs.frozen(kw_only=True)
class ConversionRequest:
    """What a converter is asked for.

    It writes the one file ``target`` and whatever it needs on the way into the folder ``work``,
    which exists, is its own, and is removed afterwards however it ends. It raises `LinnixError`
    for everything that a person can mend, a missing tool included.
    """

    model_id: str
    #: The checkpoint: a folder, or one file.
    source: Path
    target: Path
    work: Path
    #: ``F16``, ``Q4_K_M``…: what the result must be.
    quantization: str
    #: The folder of the base model, where ``source`` is an adapter and it is known here.
    base: Path | None = None
    #: The base model as the registry calls it.
    base_model: str = ""
    #: Where the user has llama.cpp, for its own converter.
    llama_cpp_dir: Path | None = None
    #: Says what is being done, how much of it is done, and of how much (None: unknown).
    progress: Callable[[str, int, int | None], None] = _unseen


@attrs.frozen(kw_only=True)
class Conversion:
    """What a converter made, checked by itself: ``quantization`` is what it really is.

    ``details`` (what JSON can hold) are kept in the registry with the artifact.
    """

    quantization: str
    details: Mapping[str, Any] = attrs.field(factory=dict)


def converters() -> dict[str, metadata.EntryPoint]:
    """The converters that are installed, by format."""
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, point)  # of two, the one that imports find first
    return found


def convert(
    registry: ModelRegistry,
    sync: SyncFile,
    model: Model,
    form: str,
    quantization: str,
    *,
    again: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Artifact:
    """Make a model in a format, or find the one that is there; registered once it holds.

    Raises `LinnixError`.
    """
    quantization = quantization.upper()
    if quantization not in QUANTIZATIONS:
        import difflib

        close = difflib.get_close_matches(quantization, QUANTIZATIONS, n=1)
        raise LinnixError(
            f"there is no quantization {printable(quantization, 40)!r}",
            hint=f"did you mean {close[0]}?" if close else "Q4_K_M is a good one to begin with",
        )
    here = this_location()
    known = model.artifact(here, form=form, quantization=quantization)
    if known is not None and not again and _is_whole(known):
        return known
    source = _source(model, here)
    check_id(model.model_id)
    folder = sync.models_dir() / f"{model.model_id}-{form}"
    target = folder / f"{model.model_id}-{quantization}.{form}"
    call = _load(form)
    try:
        with workplace(target) as work:
            made = call(
                ConversionRequest(
                    model_id=model.model_id,
                    source=source,
                    target=work / target.name,
                    work=_made(work / "work"),
                    quantization=quantization,
                    base=_base(registry, model, here),
                    base_model=str(model["base_model"]),
                    llama_cpp_dir=sync.deployment.llama_cpp_dir,
                    progress=progress or _unseen,
                )
            )
            artifact = _checked(made, work / target.name, form, quantization)
            (work / target.name).replace(target)
    except OSError as error:
        raise LinnixError(f"{error.filename or target}: {error.strerror or error}") from error
    artifact = msgspec.structs.replace(artifact, path=str(target), converted_from=str(source))

    def note(changed: Model) -> None:
        changed.put_artifact(artifact)
        changed.more["lineage"] = {**changed["lineage"], "converted_from": str(source)}

    registry.update(model.model_id, note)
    return artifact


def _load(form: str) -> Callable[[ConversionRequest], Any]:
    found = converters()
    if form not in found:
        package = _DISTRIBUTIONS.get(form)
        raise LinnixError(
            f"nothing is installed that makes {printable(form, 40)}",
            hint=f"pip install {package}"
            if package
            else f"converters are there for: {', '.join(found) or 'no format'}",
        )
    try:
        loaded: Callable[[ConversionRequest], Any] = found[form].load()
    except Exception as error:
        raise LinnixError(f"the converter to {form} cannot be imported: {error}") from error
    return loaded


def _source(model: Model, here: str) -> Path:
    """The checkpoint on this machine that everything else is made of."""
    for artifact in model.artifacts:
        if artifact.location == here and artifact.format != "gguf" and Path(artifact.path).exists():
            return Path(artifact.path)
    path = model.locations.get(here)
    if path and Path(path).exists() and not path.endswith(".gguf"):
        return Path(path)
    raise LinnixError(
        f"{model.model_id} has no checkpoint on this machine",
        hint=f"linnix models pull {model.model_id}",
    )


def _base(registry: ModelRegistry, model: Model, here: str) -> Path | None:
    """Where the base of an adapter is, if it is registered and here."""
    parent = registry.get_model(str(model["lineage"].get("adapter_of") or model["base_model"]))
    path = parent.locations.get(here) if parent else None
    return Path(path) if path and Path(path).exists() else None


def _checked(made: Any, target: Path, form: str, quantization: str) -> Artifact:
    if not isinstance(made, Conversion) or not target.is_file():
        raise LinnixError(f"the converter to {form} made nothing")
    weights = check_weights(target)
    real = (weights.quantization if weights else None) or made.quantization
    if real.upper() != quantization or made.quantization.upper() != quantization:
        raise LinnixError(f"{quantization} was asked for, and the converter made {real}")
    files = hash_files(target, LocalSource(target).entries())
    return Artifact(
        location=this_location(),
        path=str(target),
        format=form,
        quantization=real,
        files=files,
        details=made.details,
    )


def _is_whole(artifact: Artifact) -> bool:
    path = Path(artifact.path)
    return path.is_file() and path.stat().st_size == artifact.size


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder
