"""The registry: one JSON file of models, shared by every command and by the tools before it.

``models`` holds the flat keys of the format that hafs began, and nothing that its readers do
not know; what is known beyond it (files and digests, lineage, aliases, deployments) is under
``linnix``, by model. Keys of others are kept. The file is locked, replaced as a whole, and
its last version stays beside it as ``.bak``; what cannot be read is never overwritten.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Raw
from msgspec.structs import asdict

from linnix_core import LinnixError, printable

__all__ = [
    "BACKENDS",
    "Artifact",
    "Model",
    "ModelFile",
    "ModelRegistry",
    "RegistryError",
    "backend_name",
    "check_id",
    "default_path",
    "now",
]

#: The keys of the old format, in its order, with what they are when nothing is known.
FLAT_KEYS: dict[str, Any] = {
    "model_id": "",
    "display_name": "",
    "version": "v1",
    "base_model": "unknown",
    "role": "general",
    "group": "",
    "training_date": "",
    "training_duration_minutes": 0,
    "dataset_name": "",
    "dataset_path": "",
    "train_samples": 0,
    "val_samples": 0,
    "test_samples": 0,
    "dataset_quality": {},
    "final_loss": None,
    "best_loss": None,
    "eval_loss": None,
    "perplexity": None,
    "lora_config": {},
    "hyperparameters": {},
    "hardware": "unknown",
    "device": "unknown",
    "model_path": "",
    "checkpoint_path": None,
    "adapter_path": None,
    "formats": [],
    "locations": {},
    "primary_location": "",
    "deployed_backends": [],
    "ollama_model_name": None,
    "halext_node_id": None,
    "git_commit": None,
    "notes": "",
    "tags": [],
    "created_at": "",
    "updated_at": "",
}

#: What is kept beyond them, under ``linnix``.
MORE_KEYS: dict[str, Any] = {
    "artifacts": [],
    "aliases": [],
    "lineage": {},
    "metrics": {},
    "deployments": [],
    "source": None,
}

#: Spellings of a backend → the deployer's name. The registry keeps the old spelling.
BACKENDS = {
    "llama.cpp": "llama-cpp",
    "llamacpp": "llama-cpp",
    "llama_cpp": "llama-cpp",
    "halext-node": "halext",
    "halext_node": "halext",
}
_OLD_SPELLING = {"llama-cpp": "llama.cpp", "halext": "halext-node"}

_ID = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?"
_DEVICE = r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?"

T = TypeVar("T")


class RegistryError(LinnixError):
    """The registry, or what was asked of it, is not as it must be."""


def now() -> str:
    """This moment, as the registry writes it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def default_path() -> Path:
    """``LINNIX_MODELS_REGISTRY``, else ``~/.context/models/registry.json``.

    Where that file is not, and ``XDG_DATA_HOME`` is set, ``linnix/models/registry.json`` there.
    """
    if named := os.environ.get("LINNIX_MODELS_REGISTRY"):
        return Path(named).expanduser()
    usual = Path("~/.context/models/registry.json").expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    if data and not usual.exists():
        return Path(data).expanduser() / "linnix" / "models" / "registry.json"
    return usual


def check_id(name: str, what: str = "model id") -> str:
    """The id itself, if it can name a file and stand in a command line everywhere."""
    if not re.fullmatch(_ID, name) or ".." in name or re.fullmatch(_DEVICE, name):
        raise RegistryError(
            f"{printable(name, 80)!r} is no {what}",
            hint="letters, digits, dots, dashes and underscores, at most 128, beginning with a "
            "letter or digit",
        )
    return name


def backend_name(text: str, *, old: bool = False) -> str:
    """The deployer's name for what people type; with ``old``, the registry's spelling."""
    name = BACKENDS.get(text.strip().lower(), text.strip().lower())
    return _OLD_SPELLING.get(name, name) if old else name


class ModelFile(msgspec.Struct, frozen=True):
    """One file of an artifact: its path below the artifact's with ``/``, or its name."""

    path: str
    size: int
    sha256: str | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One form of a model at one place: a folder of files, or one file."""

    location: str
    path: str
    format: str
    quantization: str | None = None
    files: tuple[ModelFile, ...] = ()
    converted_from: str | None = None
    created_at: str = msgspec.field(default_factory=now)
    #: What its converter says of it: with what it was compared, and how close it is.
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str | None:
        """``sha256:…`` of the one file, or of the sorted list of ``sha256  path`` lines."""
        if not self.files or any(file.sha256 is None for file in self.files):
            return None
        if len(self.files) == 1:
            return f"sha256:{self.files[0].sha256}"
        import hashlib

        lines = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(self.files, key=_path))
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"

    def as_dict(self) -> dict[str, Any]:
        """As the registry and ``--json`` show it."""
        files = [asdict(file) for file in self.files]
        return {**asdict(self), "files": files, "size": self.size, "digest": self.digest}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Artifact | None:
        """From the registry; None for what another version wrote differently."""
        try:
            files = tuple(
                ModelFile(str(f["path"]), int(f["size"]), f.get("sha256")) for f in data["files"]
            )
            return cls(
                location=str(data["location"]),
                path=str(data["path"]),
                format=str(data["format"]),
                quantization=data.get("quantization"),
                files=files,
                converted_from=data.get("converted_from"),
                created_at=str(data.get("created_at", "")),
                details=dict(data.get("details") or {}),
            )
        except (KeyError, TypeError, ValueError):
            return None


def _path(file: ModelFile) -> str:
    return file.path


class Model(Mapping[str, Any]):
    """One model: a mapping of every key, and names for those that are used most.

    A known key of a wrong type reads as if it were missing, and is kept as it is.
    """

    def __init__(self, flat: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> None:
        self.flat = dict(flat)
        self.more = dict(more or {})

    def __getitem__(self, key: str) -> Any:
        for known, held in ((MORE_KEYS, self.more), (FLAT_KEYS, self.flat)):
            if key in known:
                default = known[key]
                value = held.get(key, default)
                wrong = default is not None and not isinstance(value, type(default))
                if isinstance(default, int) and isinstance(value, float):
                    wrong = False
                return type(default)() if wrong else value
        return {**self.flat, **self.more}[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**FLAT_KEYS, **self.flat, **MORE_KEYS, **self.more})

    def __len__(self) -> int:
        return len(set(self))

    def __repr__(self) -> str:
        return f"<Model {self.model_id}>"

    @property
    def model_id(self) -> str:
        """The key in the registry."""
        return str(self["model_id"])

    @property
    def locations(self) -> dict[str, str]:
        """Where it is: a path by location."""
        return {str(k): str(v) for k, v in self["locations"].items()}

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every form at every place that is known with its files."""
        made = (Artifact.from_dict(a) for a in self["artifacts"] if isinstance(a, Mapping))
        return tuple(artifact for artifact in made if artifact is not None)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of it."""
        return tuple(map(str, self["aliases"]))

    @property
    def deployments(self) -> tuple[dict[str, Any], ...]:
        """Who serves it, where, and how that was when it was last looked at."""
        return tuple(d for d in self["deployments"] if isinstance(d, dict))

    def artifact(
        self, location: str, *, form: str | None = None, quantization: str | None = None
    ) -> Artifact | None:
        """The newest form at a place that fits."""
        wanted = quantization.upper() if quantization else None
        for artifact in reversed(self.artifacts):
            if artifact.location != location or form not in (None, artifact.format):
                continue
            if wanted is None or (artifact.quantization or "").upper() == wanted:
                return artifact
        return None

    def as_dict(self) -> dict[str, Any]:
        """Every key that the file has of it, for ``--json``."""
        return {**self.flat, **self.more}

    # --- changes, inside of `ModelRegistry.change` ------------------------------------

    def merge(self, **known: Any) -> None:
        """Take what is known now: empty values change nothing, lists and tables grow."""
        for key, value in known.items():
            held = self.more if key in MORE_KEYS else self.flat
            if value is None or value in ("", [], {}, ()):
                held.setdefault(key, _own(value))
            elif isinstance(value, Mapping):
                held[key] = {**self[key], **value}
            elif isinstance(value, list | tuple):
                held[key] = list(dict.fromkeys((*self[key], *value)))
            else:
                held[key] = value

    def put_artifact(self, artifact: Artifact) -> None:
        """Add one, in place of the one at the same path, and note its place and format."""
        others = [a for a in self.artifacts if (a.location, a.path) != _place(artifact)]
        self.more["artifacts"] = [a.as_dict() for a in (*others, artifact)]
        self.flat["formats"] = list(dict.fromkeys((*self["formats"], artifact.format)))

    def drop_location(self, location: str) -> None:
        """Forget everything at a place."""
        self.flat["locations"] = {k: v for k, v in self.locations.items() if k != location}
        self.more["artifacts"] = [a.as_dict() for a in self.artifacts if a.location != location]
        if self["primary_location"] == location:
            self.flat["primary_location"] = next(iter(self.locations), "")

    def put_deployment(self, deployment: Mapping[str, Any]) -> None:
        """Add one, in place of the one of the same name; the old keys tell it too."""
        others = [d for d in self.deployments if d.get("name") != deployment["name"]]
        self.more["deployments"] = [*others, dict(deployment)]
        backend = str(deployment["deployer"])
        spelled = backend_name(backend, old=True)
        self.flat["deployed_backends"] = list(dict.fromkeys((*self["deployed_backends"], spelled)))
        if backend == "ollama":
            self.flat["ollama_model_name"] = deployment["name"]
        elif backend == "halext":
            self.flat["halext_node_id"] = deployment.get("node") or deployment["name"]

    def drop_deployment(self, name: str) -> None:
        """Forget one; doing it twice is not an error."""
        gone = [d for d in self.deployments if d.get("name") == name]
        kept = [d for d in self.deployments if d.get("name") != name]
        self.more["deployments"] = kept
        still = {str(d.get("deployer")) for d in kept}
        for backend in {str(d.get("deployer")) for d in gone} - still:
            self.flat["deployed_backends"] = [
                b for b in self["deployed_backends"] if backend_name(str(b)) != backend
            ]
            key = {"ollama": "ollama_model_name", "halext": "halext_node_id"}.get(backend)
            if key:
                self.flat[key] = None


def _own(value: Any) -> Any:
    """An empty value of its own, so that no two models share one."""
    return type(value)() if isinstance(value, list | dict) else value


def _place(artifact: Artifact) -> tuple[str, str]:
    return artifact.location, artifact.path


class Wanted(TypedDict, total=False):
    """Filters: the role, a location, a backend in any spelling, and a tag of a model."""

    role: str | None
    location: str | None
    backend: str | None
    tag: str | None


class _File(msgspec.Struct):
    """The top of the file as it is read: only what has to be decoded is."""

    models: dict[str, Raw]
    linnix: dict[str, Raw] = {}


class _Looked(msgspec.Struct):
    """What filters look at."""

    role: Any = FLAT_KEYS["role"]
    locations: Any = {}
    deployed_backends: Any = []
    tags: Any = []


_look = msgspec.json.Decoder(_Looked).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_EMPTY = Raw(b"{}")
_MEMBER = re.compile(rb'\{\s*"')
_BEGIN = re.compile(rb'\{\s*"model_id":\s*"([^"\\]*)"')
_NOT_READ = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ModelRegistry:
    """The models in one file. Reading makes nothing; every change is locked and whole."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path).expanduser() if path is not None else default_path()

    # --- reading ----------------------------------------------------------------------

    def models(self, **wanted: Unpack[Wanted]) -> list[Model]:
        """Those that fit every filter, in the order of the file."""
        return self._chosen(_decoded, wanted)

    def get(self, name: str) -> Model:
        """One by its id or an alias. Raises `RegistryError` with the closest id."""
        return _find(self._models(), name)

    def get_model(self, name: str) -> Model | None:
        """The same, or None."""
        try:
            return self.get(name)
        except UnknownModel:
            return None

    def listing(self, **wanted: Unpack[Wanted]) -> Iterator[bytes]:
        """``{"models": [...], "total": N}`` of those that fit, in chunks of ASCII.

        Straight from the file: of each model no more is decoded than the filters look at.
        """
        return _chunks(self._chosen(_listed, wanted))

    def _chosen(self, make: Callable[[str, Raw, Raw], T], wanted: Wanted) -> list[T]:
        """What is made of the id and both undecoded objects of every model that fits."""
        filters = any(value is not None for value in wanted.values())
        file = self._file()
        try:
            return [
                make(key, flat, file.linnix.get(key, _EMPTY))
                for key, flat in file.models.items()
                if not filters or _fits(Model(asdict(_look(flat))), **wanted)
            ]
        except _NOT_READ:
            self._load()  # raises an error that says what is wrong, and with which of them
            raise

    def _file(self) -> _File:
        content = self._content()
        with contextlib.suppress(*_NOT_READ):
            file = msgspec.json.decode(_ascii(content or b""), type=_File)
            for key in [key for key, more in file.linnix.items() if not _MEMBER.match(more)]:
                _object(file.linnix.pop(key))  # an error if it is no object, else without a member
            return file
        # No file, one model alone, or something that cannot be read: told apart there.
        tree = self._parsed(content)
        more = {key: held for key, held in tree.get("linnix", {}).items() if held}
        parts = (tree["models"], more)
        return _File(*({k: _encoded(v) for k, v in part.items()} for part in parts))

    def _models(self) -> dict[str, Model]:
        return _models_of(self._load())

    def _content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(f"{self.path} cannot be read: {error.strerror}") from None

    def _load(self) -> dict[str, Any]:
        return self._parsed(self._content())

    def _parsed(self, content: bytes | None) -> dict[str, Any]:
        if content is None:
            return {"version": "1.0", "updated_at": now(), "models": {}}
        try:
            tree = msgspec.json.decode(content)
        except _NOT_READ as error:
            raise self._corrupt(str(error)) from None
        if not isinstance(tree, dict):
            raise self._corrupt("it holds no object")
        if "models" not in tree and isinstance(tree.get("model_id"), str):
            # One model alone, as the documentation of the old tools shows it.
            tree = {"version": "1.0", "models": {tree["model_id"]: tree}}
        if not isinstance(tree.get("models"), dict):
            raise self._corrupt("it has no object 'models'")
        if not isinstance(tree.setdefault("linnix", {}), dict):
            raise self._corrupt("'linnix' is no object")
        for where in ("models", "linnix"):
            for key, value in tree[where].items():
                if not isinstance(value, dict):
                    raise self._corrupt(f"{where}.{printable(key, 80)} is no object")
        return tree

    def _corrupt(self, why: str) -> RegistryError:
        backup = self._backup()
        return RegistryError(
            f"{self.path} cannot be read as a registry of models: {why}; it stays as it is",
            hint=f"the version before is {backup}: copy it back"
            if backup.exists()
            else "mend it, or move it away to begin with an empty one",
        )

    # --- changing ---------------------------------------------------------------------

    def register(self, model_id: str, **known: Any) -> Model:
        """Add a model, or add to what is known of it. ``known`` are keys of the registry.

        ``location`` with ``path`` adds a place; ``artifacts`` are `Artifact` objects. What was
        known and is not given stays.
        """
        check_id(model_id)
        for alias in known.get("aliases") or ():
            check_id(alias, "alias")
        artifacts: Sequence[Artifact] = known.pop("artifacts", None) or ()
        location, path = known.pop("location", None), known.pop("path", None)

        def change(models: dict[str, Model]) -> Model:
            _move_aliases(models, model_id, known.get("aliases") or ())
            model = models.get(model_id)
            if model is None:
                model = models[model_id] = _new(model_id)
            model.merge(**known)
            if location and path:
                model.flat["locations"] = {**model.locations, location: path}
                if not model["primary_location"]:
                    model.flat["primary_location"] = location
                if not model["model_path"]:
                    model.flat["model_path"] = path
            for artifact in artifacts:
                model.put_artifact(artifact)
            return model

        return self.change(model_id, change)

    def update(self, name: str, change: Callable[[Model], None]) -> Model:
        """Change one model by a function. Raises `RegistryError` for an unknown name."""

        def apply(models: dict[str, Model]) -> Model:
            model = _find(models, name)
            change(model)
            return model

        return self.change(None, apply)

    def delete(self, name: str) -> Model:
        """Take a model out; its files stay. Raises `RegistryError` for an unknown name."""

        def change(models: dict[str, Model]) -> Model:
            model = _find(models, name)
            return models.pop(next(key for key, held in models.items() if held is model))

        return self.change(None, change)

    def import_models(self, path: Path) -> list[str]:
        """Take in the models of another registry, or of one sample; the ids of them.

        What is known here already stays, and what is new is added. ``metrics`` inside of a
        model, as samples of the old format have them, becomes its flat keys.
        """
        others = ModelRegistry(path)
        if others._content() is None:
            raise RegistryError(f"there is no file {path}")
        tree = others._load()
        imported = []
        for model_id, held in _models_of(tree).items():
            flat = dict(held.flat)
            metrics = flat.pop("metrics", None)
            if isinstance(metrics, dict):
                quality = {
                    key: metrics.pop(key)
                    for key in ("acceptance_rate", "rejection_rate", "avg_diversity")
                    if key in metrics
                }
                flat = {**flat, **metrics, "dataset_quality": quality}
            flat.pop("model_id", None)
            more = {k: v for k, v in held.more.items() if k not in ("artifacts", "deployments")}
            self.register(model_id, **flat, **more, artifacts=held.artifacts)
            imported.append(model_id)
        return imported

    def change(self, touched: str | None, change: Callable[[dict[str, Model]], T]) -> T:
        """Read, change and replace the file under its lock."""
        try:
            with self._locked():
                tree = self._load()
                models = _models_of(tree)
                before = {key: _snapshot(model) for key, model in models.items()}
                result = change(models)
                moment = now()
                for key, model in models.items():
                    if before.get(key) != _snapshot(model):
                        model.flat["updated_at"] = moment
                tree["updated_at"] = moment
                tree["models"] = {key: model.flat for key, model in models.items()}
                tree["linnix"] = {key: model.more for key, model in models.items() if model.more}
                self._replace(tree)
                return result
        except OSError as error:
            raise RegistryError(f"{self.path} cannot be written: {error.strerror}") from error

    def _replace(self, tree: Mapping[str, Any]) -> None:
        import tempfile

        target = self.path.resolve()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".registry-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_lines(tree, 2))
                file.flush()
                os.fsync(file.fileno())
            self._keep_backup(target)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _backup(self) -> Path:
        target = self.path.resolve()
        return target.with_name(f"{target.name}.bak")

    def _keep_backup(self, target: Path) -> None:
        """The version that is replaced stays, under another name and never absent."""
        if not target.exists():
            return
        linked = target.with_name(f".{target.name}.bak-{os.getpid()}")
        linked.unlink(missing_ok=True)
        try:
            os.link(target, linked)
        except OSError:  # a filesystem without hard links
            linked.write_bytes(target.read_bytes())
        linked.replace(self._backup())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self.path.resolve().parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            folder / f".{self.path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


class UnknownModel(RegistryError):
    """No model of that name."""


def _models_of(tree: Mapping[str, Any]) -> dict[str, Model]:
    more = tree.get("linnix", {})
    return {
        key: Model({**flat, "model_id": key}, more.get(key)) for key, flat in tree["models"].items()
    }


def _fits(
    model: Model,
    role: str | None = None,
    location: str | None = None,
    backend: str | None = None,
    tag: str | None = None,
) -> bool:
    return (
        (role is None or model["role"] == role)
        and (location is None or location in model["locations"])
        and (tag is None or tag in model["tags"])
        and (
            backend is None
            or backend_name(backend) in (backend_name(str(b)) for b in model["deployed_backends"])
        )
    )


def _decoded(key: str, flat: Raw, more: Raw) -> Model:
    return Model({**_object(flat), "model_id": key}, _object(more))


def _listed(key: str, flat: Raw, more: Raw) -> tuple[Raw, Raw]:
    """Both objects of one model, undecoded if the first begins with its id, as it always does."""
    begin = _BEGIN.match(flat)
    if begin and begin[1] == key.encode():
        return flat, more
    return _encoded({**_object(flat), "model_id": key, **_object(more)}), _EMPTY


def _chunks(listed: Sequence[tuple[Raw, Raw]]) -> Iterator[bytes]:
    yield b'{"models": ['
    for n in range(0, len(listed), 256):
        before = [b""] if n else []
        yield b",\n".join([*before, *_pieces(listed[n : n + 256])])
    yield b'], "total": %d}\n' % len(listed)


def _pieces(listed: Iterable[tuple[Raw, Raw]]) -> Iterator[memoryview]:
    """What commas join: models, and the halves of each without the braces between them."""
    for flat, more in listed:
        if more is _EMPTY:
            yield memoryview(flat)
        else:
            yield memoryview(flat)[:-1]
            yield memoryview(more)[1:]


def _lines(value: Any, levels: int) -> bytes:
    """JSON in which each member of the outer objects has a line of its own, and no more.

    It is as good to search and to compare as if it were indented, and a third smaller.
    """
    if not levels or not isinstance(value, dict):
        return msgspec.json.encode(value)
    encode = msgspec.json.encode
    lines = (b"%b: %b" % (encode(k), _lines(held, levels - 1)) for k, held in value.items())
    return b"{\n%b\n}" % b",\n".join(lines)


def _encoded(value: dict[str, Any]) -> Raw:
    return Raw(_ascii(msgspec.json.encode(value)))


def _ascii(text: bytes) -> bytes:
    """JSON in which everything that is not ASCII, and so in a string, is escaped."""
    return text if text.isascii() else re.sub(rb"[\x80-\xff]+", _escaped, text)


def _escaped(found: re.Match[bytes]) -> bytes:
    import json

    return json.dumps(found[0].decode()).encode()[1:-1]


def _new(model_id: str) -> Model:
    """With every key of the old format, which its readers need."""
    flat = {key: _own(value) for key, value in FLAT_KEYS.items()}
    more = {key: _own(value) for key, value in MORE_KEYS.items()}
    named = {"model_id": model_id, "display_name": model_id, "created_at": now()}
    return Model({**flat, **named}, more)


def _snapshot(model: Model) -> bytes:
    return msgspec.json.encode((model.flat, model.more))


def _find(models: Mapping[str, Model], name: str) -> Model:
    if name in models:
        return models[name]
    for model in models.values():
        if name in model.aliases:
            return model
    import difflib

    known = [*models, *(alias for model in models.values() for alias in model.aliases)]
    close = difflib.get_close_matches(name, known, n=1)
    raise UnknownModel(
        f"there is no model {printable(name, 80)!r} in the registry",
        hint=f"did you mean {close[0]}?" if close else "linnix models list shows them",
    )


def _move_aliases(models: Mapping[str, Model], model_id: str, aliases: Iterable[str]) -> None:
    """An alias names one model: the one that got it last."""
    for alias in aliases:
        if alias in models:
            raise RegistryError(f"{alias!r} is the id of a model and cannot be an alias")
        for other in models.values():
            if other.model_id != model_id and alias in other.aliases:
                other.more["aliases"] = [held for held in other.aliases if held != alias]
