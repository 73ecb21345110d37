"""The configuration: where it is found, how it is merged, and every mistake at once.

``linnix.toml`` (TOML 1.0) < ``LINNIX__HANDLERS__JSONL__PATH`` < ``--set a.b=c``. Reading
(`read`) knows the tables and the reserved keys; `structure` turns the rest of a
component's table into the ``Config`` of its plugin, strictly.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

import attrs

from linnix_core.catalog import canonical
from linnix_core.errors import ConfigError, Problem
from linnix_core.hookspecs import KINDS, Kind
from linnix_core.settings import Duration, Secret, Size, parse_duration, parse_size

__all__ = [
    "DEFAULT_OVERFLOW",
    "RESERVED",
    "AgentSettings",
    "ComponentSettings",
    "Overflow",
    "Settings",
    "argument_value",
    "find_file",
    "read",
    "structure",
    "unstructure",
]

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]

#: What a full queue does unless told otherwise. Waiting is what a source does best: a
#: poll comes later, a ring fills up and counts what it loses, a replay takes its time. A
#: handler must not hold up the others.
DEFAULT_OVERFLOW: dict[str, Overflow] = {"collectors": "block", "handlers": "drop_oldest"}

_COMPONENT_NAME = re.compile(r"[a-z][a-z0-9-]*")


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0, got {value}")


def _absolute(instance: Any, attribute: attrs.Attribute[Any], value: Path | None) -> None:
    # Another command, started elsewhere, has to find the same folder.
    if value is not None and not value.is_absolute():
        raise ValueError(f"{attribute.name} must be an absolute path, got {str(value)!r}")


@attrs.frozen(kw_only=True)
class AgentSettings:
    """The ``[agent]`` table."""

    batch_size: int = attrs.field(
        default=256, validator=_positive, metadata={"help": "records that travel together at most"}
    )
    linger_ms: int = attrs.field(
        default=20, validator=_positive, metadata={"help": "how long a batch waits to fill up"}
    )
    start_timeout_s: float = attrs.field(
        default=10.0, validator=_positive, metadata={"help": "for a plugin to load and start"}
    )
    stop_timeout_s: float = attrs.field(
        default=10.0, validator=_positive, metadata={"help": "for everything to drain and stop"}
    )
    reason_timeout_s: float = attrs.field(
        default=30.0, validator=_positive, metadata={"help": "for one reasoner to answer"}
    )
    strict: bool = attrs.field(
        default=False, metadata={"help": "any component that cannot run ends the run"}
    )
    data_dir: Path | None = attrs.field(
        default=None,
        validator=_absolute,
        metadata={"help": "where components keep what outlives a run"},
    )

    def data_folder(self) -> Path:
        """``data_dir``, or /var/lib/linnix for root and the XDG state folder for others."""
        if self.data_dir is not None:
            return self.data_dir
        if os.geteuid() == 0:
            return Path("/var/lib/linnix")
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "linnix"


@attrs.frozen(kw_only=True)
class Reserved:
    """The keys of a component's table that belong to the core."""

    plugin: str | None = attrs.field(
        default=None, metadata={"help": "the plugin, when the table is called otherwise"}
    )
    enabled: bool = attrs.field(default=True, metadata={"help": "false: leave it out"})
    required: bool = attrs.field(default=False, metadata={"help": "the run ends without it"})
    interval: Duration = attrs.field(
        default=Duration(5.0),
        validator=_positive,
        metadata={"help": "between two polls of a collector"},
    )
    queue: int = attrs.field(
        default=64, validator=_positive, metadata={"help": "batches that may wait"}
    )
    overflow: Overflow | None = attrs.field(
        default=None, metadata={"help": "drop_oldest, drop_newest or block when it is full"}
    )


#: Keys that a plugin's ``Config`` cannot have.
RESERVED = tuple(field.name for field in attrs.fields(Reserved))


@attrs.frozen(kw_only=True)
class ComponentSettings:
    """One component as it is to run. ``options`` are the plugin's own keys, unchecked."""

    kind: Kind
    name: str
    reserved: Reserved = attrs.field(factory=Reserved)
    options: Mapping[str, Any] = attrs.field(factory=dict)
    origin: Literal["default", "configuration", "command line"] = "configuration"
    #: What followed the colon in ``--handler NAME:ARG``.
    argument: str | None = None

    @property
    def plugin(self) -> str:
        """The name of the plugin in the catalog, maybe with its distribution."""
        return self.reserved.plugin or self.name

    @property
    def required(self) -> bool:
        """Whether the run ends without it."""
        return self.reserved.required or self.origin == "command line"

    @property
    def path(self) -> str:
        """``handlers.jsonl``."""
        return f"{self.kind}.{self.name}"


@attrs.frozen(kw_only=True)
class Settings:
    """A whole configuration, without what runs by default."""

    agent: AgentSettings = attrs.field(factory=AgentSettings)
    components: tuple[ComponentSettings, ...] = ()
    source: str = "defaults"


# --- finding and reading --------------------------------------------------------------


def find_file(explicit: str | None = None) -> Path | None:
    """The file to read: ``--config``, ``LINNIX_CONFIG``, ``./linnix.toml``, the user's, the host's.

    Raises `ConfigError` when one that was named is missing, and when ``./linnix.toml``
    belongs to somebody else: whoever owns it decides what runs.
    """
    named = explicit or os.environ.get("LINNIX_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError([Problem(str(path), "there is no such file")])
        return path
    here = Path("linnix.toml")
    if here.is_file():
        owner = here.stat().st_uid
        if owner not in (0, os.geteuid()):
            raise ConfigError(
                [
                    Problem(
                        str(here),
                        f"belongs to uid {owner}, not to you or root",
                        "say --config linnix.toml if you mean it",
                    )
                ]
            )
        return here
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (user / "linnix" / "linnix.toml", Path("/etc/linnix/linnix.toml")):
        if path.is_file():
            return path
    return None


def read(
    path: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read and merge; raises `ConfigError` with every mistake outside of plugins' own keys."""
    source = str(path) if path else "defaults"
    problems: list[Problem] = []
    tree = _load(path)
    for name, value in environ.items():
        if name.startswith("LINNIX__"):
            keys = [part.lower() for part in name.split("__")[1:]]
            _merge(tree, _respell(keys), _scalar(value), name, problems)
    for override in overrides:
        dotted, separator, value = override.partition("=")
        if not separator or not all(dotted.split(".")):
            problems.append(Problem(f"--set {override}", "expected KEY.KEY=VALUE"))
            continue
        _merge(tree, dotted.strip().split("."), _scalar(value), f"--set {dotted}", problems)
    agent, components = _interpret(tree, problems)
    if problems:
        raise ConfigError(problems, source=source)
    return Settings(agent=agent, components=components, source=source)


def _load(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), error.strerror or str(error))]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("TOML", str(error))], source=str(path)) from None


def _scalar(text: str) -> Any:
    """A value as TOML would read it, and otherwise as the text that it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _respell(keys: list[str]) -> list[str]:
    """Environment names have no dashes: the names of components get them back, keys have none."""
    if len(keys) >= 3 and keys[0] in KINDS:
        keys[1] = keys[1].replace("_", "-")
    return keys


def _merge(
    tree: dict[str, Any], keys: Sequence[str], value: Any, said: str, problems: list[Problem]
) -> None:
    if len(keys) < 2:
        problems.append(Problem(said, "names no table and key"))
        return
    table = tree
    for key in keys[:-1]:
        below = table.setdefault(key, {})
        if not isinstance(below, dict):
            problems.append(Problem(said, f"{key} is a value, not a table"))
            return
        table = below
    table[keys[-1]] = value


def _interpret(
    tree: Mapping[str, Any], problems: list[Problem]
) -> tuple[AgentSettings, tuple[ComponentSettings, ...]]:
    agent = AgentSettings()
    components: list[ComponentSettings] = []
    for name, table in tree.items():
        if name not in ("agent", *KINDS):
            problems.append(Problem(name, "unknown table", _did_you_mean(name, ("agent", *KINDS))))
        elif not isinstance(table, dict):
            problems.append(Problem(name, "must be a table", f"write [{name}]"))
        elif name == "agent":
            agent = structure(AgentSettings, table, "agent", problems) or agent
        else:
            kind: Kind = name  # type: ignore[assignment]
            for component, options in table.items():
                if made := _component(kind, component, options, problems):
                    components.append(made)
    return agent, tuple(components)


def _component(
    kind: Kind, name: str, options: Any, problems: list[Problem]
) -> ComponentSettings | None:
    name = canonical(name)
    path = f"{kind}.{name}"
    if not isinstance(options, dict):
        problems.append(Problem(path, "must be a table", f"write [{path}]"))
        return None
    if not _COMPONENT_NAME.fullmatch(name):
        problems.append(
            Problem(
                path, "a name starts with a small letter and goes on with those, digits or dashes"
            )
        )
        return None
    reserved = structure(
        Reserved, {key: options[key] for key in RESERVED if key in options}, path, problems
    )
    if reserved is None:
        return None
    if "interval" in options and kind != "collectors":
        problems.append(Problem(f"{path}.interval", "only collectors have an interval"))
    if {"queue", "overflow"} & options.keys() and kind not in ("collectors", "handlers"):
        problems.append(Problem(path, f"{kind} have no queue"))
    own = {key: value for key, value in options.items() if key not in RESERVED}
    return ComponentSettings(kind=kind, name=name, reserved=reserved, options=own)


# --- strict structure -----------------------------------------------------------------


def structure(cls: Any, table: Mapping[str, Any], path: str, problems: list[Problem]) -> Any | None:
    """An instance of an attrs class from a table, or None and every mistake in ``problems``.

    Strict: unknown keys are mistakes, ``"3"`` is no number and 1 is no ``true``. Each key is
    converted and validated by itself, so that one mistake does not hide another.
    """
    fields = attrs.fields_dict(cls)
    found = [
        Problem(f"{path}.{key}", "unknown key", _did_you_mean(key, fields))
        for key in table
        if key not in fields
    ]
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        where = f"{path}.{name}"
        if name in table:
            mistakes = len(found)
            values[name] = _structure_value(table[name], hints[name], where, found)
            if field.validator is not None and len(found) == mistakes:
                found.extend(_invalid(field, values[name], where))
        elif field.default is attrs.NOTHING:
            found.append(Problem(where, "required key is missing"))
    problems.extend(found)
    if found:
        return None
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        problems.append(_problem(error, path, cls))
        return None


def _structure_value(value: Any, hint: Any, path: str, problems: list[Problem]) -> Any:
    inner = next((arg for arg in (hint, *get_args(hint)) if attrs.has(arg)), None)
    if inner is not None and isinstance(value, dict):
        return structure(inner, value, path, problems)
    try:
        return _converter().structure(value, hint)
    except Exception as error:  # noqa: BLE001 - cattrs raises groups of anything
        problems.extend(_problems(error, path, inner))
        return None


def _invalid(field: attrs.Attribute[Any], value: Any, path: str) -> Iterable[Problem]:
    """What the validator of one key says; one that looks at other keys has its say later."""
    try:
        field.validator(None, field, value)  # type: ignore[misc]
    except (ValueError, TypeError) as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        for quoted in (f"{field.name} ", f"'{field.name}' "):
            reason = reason.removeprefix(quoted)
        yield Problem(path, reason)
    except AttributeError:
        return


def unstructure(config: Any) -> dict[str, Any]:
    """An attrs configuration as TOML values; secrets as where they come from, None left out."""
    shown: dict[str, Any] = {}
    for field in attrs.fields(type(config)):
        value = _shown(getattr(config, field.name))
        if value is not None:
            shown[field.name] = value
    return shown


def _shown(value: Any) -> Any:
    if isinstance(value, Secret):
        kind, _, name = value.source.partition(" ")
        return {kind: name} if name else "********"
    if attrs.has(type(value)):
        return unstructure(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple | list | set | frozenset):
        return [_shown(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def argument_value(cls: Any, field: str, text: str) -> Any:
    """``--handler NAME:ARG`` as a value for that field: the text, unless it must be more."""
    hint = get_type_hints(cls).get(field, str)
    try:
        _converter().structure(text, hint)
    except Exception:  # noqa: BLE001 - whatever is wrong is reported with the whole table
        return _scalar(text)
    return text


_made: list[Any] = []


def _converter() -> Any:
    """One strict cattrs converter; made on first use, because importing cattrs takes 60 ms."""
    if not _made:
        from cattrs import Converter

        converter = Converter(forbid_extra_keys=True, detailed_validation=True)
        for kind, words in ((str, "a text"), (bool, "true or false"), (int, "a whole number")):
            converter.register_structure_hook(kind, _exactly(kind, words))
        converter.register_structure_hook(float, _number)
        converter.register_structure_hook(Duration, lambda value, _: parse_duration(value))
        converter.register_structure_hook(Size, lambda value, _: parse_size(value))
        converter.register_structure_hook(Secret, lambda value, _: Secret.resolve(value))
        converter.register_structure_hook(Path, _path)
        converter.register_structure_hook_func(_is_sequence, _sequence)
        converter.register_structure_hook_func(_is_literal, _literal)
        _made.append(converter)
    return _made[0]


def _exactly(kind: type, words: str) -> Any:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {words}, got {value!r}")
        return value

    return check


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a path, got {value!r}")
    return Path(value).expanduser()


def _is_literal(cls: Any) -> bool:
    return getattr(cls, "__origin__", None) is Literal


def _literal(value: Any, cls: Any) -> Any:
    choices = get_args(cls)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        close = _did_you_mean(value, [c for c in choices if isinstance(c, str)])
        listed = ", ".join(map(str, choices))
        raise ValueError(
            f"expected one of {listed}, got {value!r}" + (f" ({close})" if close else "")
        )
    return value


def _is_sequence(cls: Any) -> bool:
    return getattr(cls, "__origin__", None) in (tuple, list)


def _sequence(value: Any, cls: Any) -> Any:
    """A list is a list: cattrs would take the letters of a text as its items."""
    from cattrs import IterableValidationError, IterableValidationNote

    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list, got {value!r}")
    origin, item_type = cls.__origin__, get_args(cls)[0]
    items, errors = [], []
    for index, item in enumerate(value):
        try:
            items.append(_converter().structure(item, item_type))
        except Exception as error:  # noqa: BLE001 - collected and raised together
            error.__notes__ = [IterableValidationNote(f"item {index}", index, item_type)]
            errors.append(error)
    if errors:
        raise IterableValidationError("in the list", errors, cls)
    return origin(items)


def _problems(error: BaseException, path: str, cls: Any) -> Iterable[Problem]:
    """Walk the tree of errors that cattrs collected, down to each single mistake."""
    from cattrs import (
        AttributeValidationNote,
        BaseValidationError,
        ForbiddenExtraKeysError,
        IterableValidationNote,
    )

    if isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            yield Problem(f"{path}.{key}", "unknown key", _did_you_mean(key, _keys(error.cl)))
        return
    if not isinstance(error, BaseValidationError):
        yield _problem(error, path, cls)
        return
    for inner in error.exceptions:
        where, inner_cls = path, getattr(error, "cl", cls)
        for note in getattr(inner, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                where = f"{path}.{note.name}"
            elif isinstance(note, IterableValidationNote):
                where = f"{path}[{note.index}]"
        yield from _problems(inner, where, inner_cls)


def _problem(error: BaseException, path: str, cls: Any) -> Problem:
    if isinstance(error, KeyError):
        missing = f".{error.args[0]}"
        return Problem(path.removesuffix(missing) + missing, "required key is missing")
    reason = str(error.args[0]) if error.args else type(error).__name__
    # A validator of attrs knows only the field; it names it first.
    for key in _keys(cls):
        if reason.startswith(f"{key} "):
            return Problem(f"{path}.{key}", reason.removeprefix(f"{key} "))
        if reason.startswith(f"'{key}' "):
            return Problem(f"{path}.{key}", reason.removeprefix(f"'{key}' "))
    return Problem(path, reason)


def _keys(cls: Any) -> list[str]:
    return [field.name for field in attrs.fields(cls)] if attrs.has(cls) else []


def _did_you_mean(word: Any, choices: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"did you mean {close[0]!r}?" if close else None


def type_name(cls: Any, field: str) -> str:
    """The type of a configuration key as people read it."""
    hint = get_type_hints(cls)[field]
    return getattr(hint, "__name__", str(hint)).replace("typing.", "")
