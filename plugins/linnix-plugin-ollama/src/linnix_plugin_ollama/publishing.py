"""A GGUF becomes a model of an Ollama server, is asked whether it is one, and goes again.

What a deployment needs of the server is here, for every deployer whose models end up on one.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs

from linnix_core import Deployment, Health, LinnixError, ModelSpec, printable
from linnix_plugin_ollama.chat import OllamaChat
from linnix_plugin_ollama.names import full_name, is_same_model, short_name
from linnix_plugin_ollama.question import ask_once
from linnix_plugin_ollama.store import CHUNK, Shown, Store
from linnix_plugin_ollama.templates import FAMILIES, RAW, Family, family_of, read_chat_template
from linnix_plugin_openai import is_loopback

__all__ = ["check", "deployments_of", "publish", "withdraw"]

#: What Ollama makes of a GGUF of 16 or 32 bits; the rest is refused there.
QUANTIZATIONS = ("Q4_K_S", "Q4_K_M", "Q8_0")

#: Options of a deployment that become parameters of the model (ollama/ollama, api/types.go).
PARAMETERS = frozenset(
    {
        "frequency_penalty", "main_gpu", "min_p", "num_batch", "num_ctx", "num_gpu", "num_keep",
        "num_predict", "num_thread", "presence_penalty", "repeat_last_n", "repeat_penalty", "seed",
        "stop", "temperature", "top_k", "top_p", "use_mmap",
    }
)  # fmt: skip

#: Options that are read here, and what the commands say of a model unasked.
OWN_OPTIONS = frozenset({"quantize", "replace", "system", "template"})
SAID = frozenset({"base_model", "digest", "llama_cpp_dir", "model_id", "models_dir", "node"})

#: Seconds for a model to come into memory for the first time.
LOAD_S = 400.0

#: Left free on the disk beyond what is about to be written.
SPARE_BYTES = 64 << 20

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")

#: Where a model's chat template is from; a family's name otherwise.
OWN, GIVEN, NONE = "its own", "given", "none"


def publish(
    store: Store,
    spec: ModelSpec,
    logger: logging.Logger,
    *,
    num_ctx: int,
    more_options: frozenset[str] = frozenset(),
) -> Deployment:
    """Have the server serve the GGUF of ``spec`` under its name, or find that it does.

    What is there is not uploaded again, and a model of that name with other weights is not
    replaced unasked. A model that cannot be brought into memory is removed again. The
    deployer's name is left empty. Raises `LinnixError`.
    """
    wanted = _Wanted.of(spec, PARAMETERS | OWN_OPTIONS | SAID | more_options)
    shown = store.show(wanted.model)
    if shown is not None and not wanted.replace and shown.weights != wanted.digest:
        raise LinnixError(
            f"{store.url} has another model called {short_name(wanted.model)}",
            hint="undeploy it, choose another name with --as, or say -o replace=true",
        )
    if shown is None or wanted.is_to_be_made(shown):
        _upload(store, wanted, logger)
        template = _make(store, wanted, logger, num_ctx, is_new=shown is None)
    else:
        template = _template_of(shown)
    found = store.find(wanted.model)
    now = store.show(wanted.model)
    if found is None or now is None:
        raise LinnixError(f"{store.url} made {wanted.model} and does not have it")
    return Deployment(
        name=spec.name,
        deployer="",
        model=found.name,
        endpoint=f"{store.url}/v1",
        digest=now.weights or wanted.digest,
        details={
            "model_id": str(spec.options.get("model_id") or spec.name),
            "manifest": found.manifest,
            "template": template,
            "num_ctx": int(wanted.parameters.get("num_ctx", num_ctx)),
            "quantization": now.quantization,
            "server": store.version(),
        },
    )


def _make(
    store: Store, wanted: _Wanted, logger: logging.Logger, num_ctx: int, *, is_new: bool
) -> str:
    """Create the model, see what became of it, and bring it into memory."""
    try:
        template = _create(store, wanted, logger)
        store.load(wanted.model, {"num_ctx": num_ctx, **wanted.parameters}, LOAD_S)
    except LinnixError as error:
        if is_new:
            # Whoever looks next must not find a model that nobody can use.
            _try_to_delete(store, wanted.model, logger)
        raise LinnixError(
            f"{short_name(wanted.model)} cannot be served: {error}", hint=error.hint
        ) from error
    return template


def _create(store: Store, wanted: _Wanted, logger: logging.Logger) -> str:
    body: dict[str, Any] = {
        "files": {"model.gguf": wanted.digest},
        "parameters": dict(wanted.parameters),
    }
    if wanted.system:
        body["system"] = wanted.system
    if wanted.quantize:
        body["quantize"] = wanted.quantize
    if wanted.template is not None:
        shown = _created(store, wanted, {**body, "template": wanted.template}, logger)
        return GIVEN if _template_of(shown) != NONE else NONE
    family = wanted.family
    if not wanted.is_family_asked_for:
        shown = _created(store, wanted, body, logger)
        if family is None or _template_of(shown) != NONE:
            return _template_of(shown)
        # It brings none, or none that this server knows.
    assert family is not None
    body["parameters"].setdefault("stop", list(family.stop))
    return _template_of(_created(store, wanted, {**body, "template": family.template}, logger))


def _created(
    store: Store, wanted: _Wanted, body: Mapping[str, Any], logger: logging.Logger
) -> Shown:
    for progress in store.create(wanted.model, body):
        logger.info("%s: %s", store.url, progress)
    shown = store.show(wanted.model)
    if shown is None:
        raise LinnixError("the server says that it made the model, and does not have it")
    if wanted.quantize and shown.quantization.upper() != wanted.quantize:
        raise LinnixError(f"the server made {shown.quantization} of it, not {wanted.quantize}")
    if not wanted.quantize and shown.weights not in (wanted.digest, None):
        raise LinnixError(f"the server made it of other weights ({shown.weights})")
    return shown


def _template_of(shown: Shown) -> str:
    """Where the template that a model has is from, as far as it tells."""
    if shown.template.strip() in ("", RAW):
        return NONE
    return next((each.name for each in FAMILIES if each.template == shown.template), OWN)


def _try_to_delete(store: Store, model: str, logger: logging.Logger) -> None:
    try:
        store.delete(model)
    except LinnixError as error:
        logger.warning("%s is left on %s: %s", model, store.url, error)


def _upload(store: Store, wanted: _Wanted, logger: logging.Logger) -> None:
    if store.has(wanted.digest):
        return
    _see_that_it_fits(store, wanted)
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            logger.info("uploading %s to %s: %d %%", wanted.path.name, store.url, 10 * tenth)

    began = time.monotonic()
    store.upload(wanted.path, wanted.digest, tell)
    logger.info("uploaded %s in %.1f s", wanted.path.name, time.monotonic() - began)


def _see_that_it_fits(store: Store, wanted: _Wanted) -> None:
    if wanted.models_dir is None or not is_loopback(urlsplit(store.url).hostname or ""):
        return  # nobody knows how much room another machine has
    if not wanted.models_dir.is_dir():
        raise LinnixError(
            f"{wanted.models_dir}, where Ollama should keep its models, is no folder",
            hint="correct deployment.ollama_models_dir of sync.toml, or leave it out",
        )
    size, free = wanted.path.stat().st_size, shutil.disk_usage(wanted.models_dir).free
    if size + SPARE_BYTES > free:
        raise LinnixError(
            f"{wanted.path.name} takes {size / 1e9:.1f} GB, and {wanted.models_dir} has "
            f"{free / 1e9:.1f} GB left",
            hint="make room: ollama list, ollama rm",
        )


@attrs.frozen(kw_only=True)
class _Wanted:
    """What a spec asks for, checked before anything is done."""

    model: str
    path: Path
    digest: str
    family: Family | None
    is_family_asked_for: bool
    template: str | None
    system: str
    quantize: str
    replace: bool
    parameters: Mapping[str, Any]
    models_dir: Path | None

    @classmethod
    def of(cls, spec: ModelSpec, known: frozenset[str]) -> _Wanted:
        options = spec.options
        if unknown := sorted(set(options) - known):
            raise LinnixError(
                f"unknown option: {printable(', '.join(unknown), 200)}",
                hint=f"there are {', '.join(sorted(PARAMETERS | OWN_OPTIONS))}",
            )
        model = full_name(spec.name)
        path = _gguf_of(Path(spec.path))
        given = str(options.get("template") or "")
        named = next((family for family in FAMILIES if family.name == given), None)
        if given and named is None and "{{" not in given:
            raise LinnixError(
                f"there is no template {printable(given, 80)!r}",
                hint=f"name one of {', '.join(family.name for family in FAMILIES)}, "
                "or give one in Ollama's language",
            )
        num_ctx = options.get("num_ctx", 1)
        if type(num_ctx) is not int or num_ctx < 1:
            raise LinnixError(f"num_ctx must be a number of tokens, got {num_ctx!r}")
        stop = options.get("stop")
        models_dir = options.get("models_dir")
        return cls(
            model=model,
            path=path,
            digest=_digest_of(path, spec),
            family=named or family_of(str(options.get("base_model", "")), _own_template(path)),
            is_family_asked_for=named is not None,
            template=given if given and named is None else None,
            system=str(options.get("system") or ""),
            quantize=_quantize(spec),
            replace=options.get("replace") is True,
            parameters={
                **{key: value for key, value in options.items() if key in PARAMETERS},
                **({"stop": [stop] if isinstance(stop, str) else stop} if stop else {}),
            },
            models_dir=Path(str(models_dir)) if models_dir else None,
        )

    def is_to_be_made(self, shown: Shown) -> bool:
        """Whether a model that is there may be other than it is wanted."""
        if shown.weights != self.digest or self.quantize or self.system or self.parameters:
            return True
        if self.template is not None or self.is_family_asked_for:
            return True
        return _template_of(shown) == NONE and self.family is not None


def _quantize(spec: ModelSpec) -> str:
    asked = str(spec.options.get("quantize") or "").upper()
    if asked and asked not in QUANTIZATIONS:
        raise LinnixError(
            f"Ollama does not quantize to {printable(asked, 40)}, only to "
            f"{', '.join(QUANTIZATIONS)}",
            hint=f"linnix models convert MODEL gguf --quant {printable(asked, 40)}, "
            "then deploy that",
        )
    have = (spec.quantization or "").upper()
    if asked and have not in ("", "F32", "F16", "BF16", asked):
        raise LinnixError(
            f"what is quantized as {printable(have, 40)} is not quantized again",
            hint="deploy the F16, or leave quantize out",
        )
    return "" if asked == have else asked


def _gguf_of(path: Path) -> Path:
    """The one file that is served."""
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            raise LinnixError(
                f"{path} holds {len(found)} files of the kind GGUF, and one is served",
                hint="merge a split model with llama-gguf-split --merge",
            )
        path = found[0]
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise LinnixError(f"{path} cannot be read: {error.strerror}") from None
    if begin != b"GGUF":
        raise LinnixError(f"{path} is no GGUF", hint="linnix models convert MODEL gguf")
    return path


def _own_template(path: Path) -> str | None:
    try:
        return read_chat_template(path)
    except OSError as error:
        raise LinnixError(f"{path} cannot be read: {error.strerror}") from None


def _digest_of(path: Path, spec: ModelSpec) -> str:
    """As the registry knows it, else by reading the file; the server compares it anyway."""
    known = str(spec.options.get("digest") or "")
    if _SHA256.fullmatch(known) and Path(spec.path) == path:
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


# --- what is served -------------------------------------------------------------------


def check(store: Store, deployment: Deployment, *, num_ctx: int, timeout_s: float) -> Health:
    """Whether the server has the model, of the same weights, and it answers as it must."""
    ends = time.monotonic() + timeout_s
    name, details = short_name(deployment.model), deployment.details
    # A context of another size would have the model loaded again, and again for the agent.
    said = details.get("num_ctx")
    num_ctx = said if isinstance(said, int) and said > 0 else num_ctx
    try:
        shown = store.show(deployment.model)
        if shown is None:
            return Health("failed", f"{store.url} has no model {printable(name, 80)}")
        if deployment.digest and shown.weights and shown.weights != deployment.digest:
            return Health("failed", f"{name} has other weights now: {shown.weights}")
        began = time.monotonic()
        chat = OllamaChat(store, deployment.model, num_ctx=num_ctx)
        found = chat.probe(ends - began, ask_once())
        seconds = time.monotonic() - began
    except LinnixError as error:
        return Health("failed", str(error))
    limits = [str(found)]
    if chat.answered_by and not is_same_model(chat.answered_by, deployment.model):
        other = printable(chat.answered_by, 80)
        return Health("failed", f"{other} answered in place of {name}")
    if _template_of(shown) == NONE:
        limits.append("chat template: none, so that prompts reach the model without any marks")
    if shown.weights is None:
        limits.append("weights: the server does not tell which they are")
    if found.verdict != "enforced":
        return Health("degraded", f"{name} answers, but not as the schema says", tuple(limits))
    return Health("ok", f"answered as it must in {seconds:.2f} s", tuple(limits))


def withdraw(
    store: Store, deployment: Deployment, logger: logging.Logger
) -> Literal["removed", "gone", "another"]:
    """Remove the model, unless it is gone, or somebody made another one of its name."""
    shown = store.show(deployment.model)
    if shown is None:
        return "gone"
    if deployment.digest and shown.weights and shown.weights != deployment.digest:
        logger.warning(
            "%s of %s has other weights than what was deployed, and stays",
            deployment.model,
            store.url,
        )
        return "another"
    return "removed" if store.delete(deployment.model) else "gone"


def deployments_of(store: Store) -> list[Deployment]:
    """Every model of the server, whoever put it there."""
    loaded = [each.name for each in store.loaded()]
    found = []
    for each in store.listed():
        shown = store.show(each.name)
        if shown is not None:
            found.append(
                Deployment(
                    name=short_name(each.name),
                    deployer="",
                    model=each.name,
                    endpoint=f"{store.url}/v1",
                    digest=shown.weights,
                    details={
                        "manifest": each.manifest,
                        "size": each.size,
                        "loaded": any(is_same_model(each.name, name) for name in loaded),
                    },
                )
            )
    return found
