"""The configuration: where it is found, how it is merged, and every mistake at once.

``linnix.toml`` (TOML 1.0) < ``LINNIX__HANDLERS__JSONL__PATH`` < ``--set a.b=c``. Reading
(`read`) knows the tables and the reserved keys; `structure` turns the rest of a
component's table into the ``Config`` of its plugin, strictly.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

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
    "default_of",
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

#: The file of the host, read when nobody has a nearer one.
SYSTEM_FILE = Path("/etc/linnix/linnix.toml")

_COMPONENT_NAME = re.compile(r"[a-z][a-z0-9-]*")


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0, got {value}")


def _not_negative(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative, got {value}")


def _absolute(instance: Any, attribute: attrs.Attribute[Any], value: Path | None) -> None:
    # Another command, started elsewhere, has to find the same folder.
    if value is not None and not value.is_absolute():
        raise ValueError(f"{attribute.name} must be an absolute path, got {str(value)!r}")


def _unprivileged(instance: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is None:
        return
    from linnix_core.privileges import find_account

    try:
        account = find_account(value)
    except (KeyError, ValueError):
        raise ValueError(
            f"{attribute.name} must be an account of this machine, got {value!r}"
        ) from None
    if account.uid == 0:
        raise ValueError(
            f"{attribute.name} must not be root; drop_privileges = false keeps a run privileged"
        )


@attrs.frozen(kw_only=True)
class AgentSettings:
    """The ``[agent]`` table."""

    batch_size: int = attrs.field(
        default=256, validator=_positive, metadata={"help": "records that travel together at most"}
    )
    linger_ms: int = attrs.field(
        default=20, validator=_positive, metadata={"help": "how long a few records wait for more"}
    )
    start_timeout_s: float = attrs.field(
        default=10.0, validator=_positive, metadata={"help": "for a plugin to load and start"}
    )
    stop_timeout_s: float = attrs.field(
        default=10.0, validator=_positive, metadata={"help": "for everything to drain and stop"}
    )
    reason_timeout_s: float = attrs.field(
        default=30.0,
        validator=_positive,
        metadata={"help": "for an incident to be explained, all reasoners together"},
    )
    reasons_per_hour: int = attrs.field(
        default=60, validator=_positive, metadata={"help": "how often one reasoner is asked"}
    )
    reason_failures: int = attrs.field(
        default=3,
        validator=_positive,
        metadata={"help": "failures in a row after which a reasoner is left alone"},
    )
    reason_pause_s: float = attrs.field(
        default=60.0, validator=_positive, metadata={"help": "for how long it is left alone"}
    )
    reason_cache: int = attrs.field(
        default=256,
        validator=_not_negative,
        metadata={"help": "answers that are kept for incidents like those"},
    )
    strict: bool = attrs.field(
        default=False, metadata={"help": "any component that cannot run ends the run"}
    )
    data_dir: Path | None = attrs.field(
        default=None,
        validator=_absolute,
        metadata={"help": "where components keep what outlives a run"},
    )
    drop_privileges: bool = attrs.field(
        default=True,
        metadata={"help": "a run started as root becomes another account once everything runs"},
    )
    user: str | None = attrs.field(
        default=None,
        validator=_unprivileged,
        metadata={"help": "that account: linnix where it exists, else nobody"},
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
    for path in (user / "linnix" / "linnix.toml", SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def read(
    path: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    problems: list[Problem] | None = None,
) -> Settings:
    """Read and merge; raises `ConfigError` with every mistake outside of plugins' own keys.

    With ``problems`` mistakes go there instead, and what comes back is good for nothing but
    to look for more of them, in the keys of plugins.
    """
    source = str(path) if path else "defaults"
    raising, problems = problems is None, problems if problems is not None else []
    tree = _load(path)
    _use_canonical_names(tree, problems)
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
    if problems and raising:
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
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A text of several lines may be more than one value.
    return read["value"] if len(read) == 1 else text


def _use_canonical_names(tree: dict[str, Any], problems: list[Problem]) -> None:
    for kind in KINDS:
        tables = tree.get(kind)
        if isinstance(tables, dict):
            named = {canonical(name): table for name, table in tables.items()}
            problems.extend(
                Problem(f"{kind}.{name}", f"there is a table [{kind}.{canonical(name)}] too")
                for name in tables
                if name != canonical(name) and len(named) < len(tables)
            )
            tree[kind] = named


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
    if keys[0] in KINDS:
        keys = [keys[0], canonical(keys[1]), *keys[2:]]
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
    mine = {key: options[key] for key in RESERVED if key in options}
    reserved = structure(Reserved, mine, path, problems)
    if reserved is None:
        # So that its other keys are looked at as well.
        plugin = mine.get("plugin")
        reserved = Reserved(plugin=plugin if isinstance(plugin, str) else None)
    if "interval" in options and kind != "collectors":
        problems.append(Problem(f"{path}.interval", "only collectors have an interval"))
    if kind not in ("collectors", "handlers"):
        queued = [key for key in ("queue", "overflow") if key in options]
        problems.extend(Problem(f"{path}.{key}", f"{kind} have no queue") for key in queued)
    own = {key: value for key, value in options.items() if key not in RESERVED}
    return ComponentSettings(kind=kind, name=name, reserved=reserved, options=own)


# --- strict structure -----------------------------------------------------------------


def structure(cls: Any, table: Mapping[str, Any], path: str, problems: list[Problem]) -> Any | None:
    """An instance of an attrs class from a table, or None and every mistake in ``problems``.

    Strict: unknown keys are mistakes, ``"3"`` is no number and 1 is no ``true``. Each key is
    converted and validated by itself, so that one mistake does not hide another.
    """
    fields = {field.name: field for field in attrs.fields(cls) if field.init}
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
            value = values[field.alias] = _value(table[name], hints.get(name, Any), where, found)
            if field.validator and not field.converter and len(found) == mistakes:
                found.extend(_invalid(field, value, where))
        elif field.default is attrs.NOTHING:
            found.append(Problem(where, "required key is missing", field.metadata.get("help")))
    problems.extend(found)
    if found:
        return None
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        problems.append(_problem(error, path, fields))
        return None


def _value(value: Any, hint: Any, path: str, problems: list[Problem]) -> Any:
    """One value as its type wants it; what is wrong with it, down to each item, is a problem."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if attrs.has(origin):
        if isinstance(value, Mapping):
            return structure(origin, value, path, problems)
        problems.append(_no_table(path, value))
    elif origin in (Union, types.UnionType):
        return _alternative(value, args, path, problems)
    elif origin in (list, tuple, set, frozenset, Sequence):
        if not isinstance(value, list | tuple):
            suggestion = None if isinstance(value, Mapping) else f"write [{value!r}]"
            problems.append(Problem(path, f"expected a list, got {_said(value)}", suggestion))
            return None
        hints = args if origin is tuple and args[-1:] != (...,) else args[:1] * len(value)
        if hints and len(hints) != len(value):
            problems.append(Problem(path, f"expected {len(hints)} values, got {len(value)}"))
            return None
        pairs = zip(value, hints or [Any] * len(value), strict=True)
        made = [_value(v, hint, f"{path}[{n}]", problems) for n, (v, hint) in enumerate(pairs)]
        return tuple(made) if origin is Sequence else origin(made)
    elif origin in (dict, Mapping):
        if isinstance(value, Mapping):
            item = args[1] if args else Any
            return {k: _value(v, item, f"{path}.{k}", problems) for k, v in value.items()}
        problems.append(_no_table(path, value))
    else:
        try:
            return _converter().structure(value, hint)
        except (ValueError, TypeError) as error:
            problems.append(_problem(error, path, ()))
    return None


def _no_table(path: str, value: Any) -> Problem:
    return Problem(path, f"expected a table, got {_said(value)}", "write { key = value }")


def _said(value: Any) -> str:
    """A value of the configuration in its own words; what is in a table may be secret."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _alternative(value: Any, hints: Sequence[Any], path: str, problems: list[Problem]) -> Any:
    """The first of several types that takes the value; there is no null in TOML."""
    refused: list[Problem] = []
    for hint in hints:
        if hint is not types.NoneType:
            mistakes: list[Problem] = []
            made = _value(value, hint, path, mistakes)
            if not mistakes:
                return made
            refused = refused or mistakes
    problems.extend(refused)
    return None


def _invalid(field: attrs.Attribute[Any], value: Any, path: str) -> Iterable[Problem]:
    """What the validator of one key says; one that looks at other keys has its say later."""
    try:
        field.validator(None, field, value)  # type: ignore[misc]
    except (ValueError, TypeError) as error:
        yield _problem(error, path.removesuffix(f".{field.name}"), (field.name,))
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
    # Whatever is wrong is reported with the whole table.
    problems: list[Problem] = []
    _value(text, get_type_hints(cls).get(field, str), field, problems)
    return _scalar(text) if problems else text


_made: list[Any] = []


def _converter() -> Any:
    """One strict cattrs converter; made on first use, because importing cattrs takes 60 ms."""
    if not _made:
        from cattrs import Converter

        converter = Converter(forbid_extra_keys=True)
        for kind, words in ((str, "a text"), (bool, "true or false"), (int, "a whole number")):
            converter.register_structure_hook(kind, _exactly(kind, words))
        converter.register_structure_hook(float, _number)
        converter.register_structure_hook(Duration, lambda value, _: parse_duration(value))
        converter.register_structure_hook(Size, lambda value, _: parse_size(value))
        converter.register_structure_hook(Secret, lambda value, _: Secret.resolve(value))
        converter.register_structure_hook(Path, _path)
        converter.register_structure_hook_func(_is_literal, _literal)
        _made.append(converter)
    return _made[0]


class _Mistake(ValueError):
    def __init__(self, reason: str, suggestion: str | None = None) -> None:
        super().__init__(reason)
        self.suggestion = suggestion


def _exactly(kind: type, words: str) -> Any:
    def check(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        suggestion = None
        if kind is str and isinstance(value, bool | int | float):
            suggestion = f'write "{str(value).lower()}"'
        elif isinstance(value, str) and type(_scalar(value)) is kind:
            suggestion = f"write {value} without quotes"
        raise _Mistake(f"expected {words}, got {_said(value)}", suggestion)

    return check


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        plain = isinstance(value, str) and type(_scalar(value)) in (int, float)
        suggestion = f"write {value} without quotes" if plain else None
        raise _Mistake(f"expected a number, got {_said(value)}", suggestion)
    if not abs(value) < math.inf:
        raise ValueError(f"expected a finite number, got {_said(value)}")
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a path, got {_said(value)}")
    return Path(value).expanduser()


def _is_literal(cls: Any) -> bool:
    return getattr(cls, "__origin__", None) is Literal


def _literal(value: Any, cls: Any) -> Any:
    choices = get_args(cls)
    if value not in choices or type(value) not in {type(choice) for choice in choices}:
        close = _did_you_mean(value, [c for c in choices if isinstance(c, str)])
        listed = ", ".join(map(str, choices))
        raise _Mistake(f"expected one of {listed}, got {_said(value)}", close)
    return value


def _problem(error: BaseException, path: str, keys: Iterable[str]) -> Problem:
    """What a conversion or a validator says; validators of attrs name the key first."""
    reason = str(error.args[0]) if error.args else type(error).__name__
    suggestion = getattr(error, "suggestion", None)
    for key in keys:
        for quoted in (f"{key} ", f"'{key}' "):
            if reason.startswith(quoted):
                return Problem(f"{path}.{key}", reason.removeprefix(quoted), suggestion)
    return Problem(path, reason, suggestion)


def _did_you_mean(word: Any, choices: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"did you mean {close[0]!r}?" if close else None


def default_of(field: attrs.Attribute[Any]) -> Any:
    """What a key is when nobody sets it; None for a key that must be set."""
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return None if default.takes_self else default.factory()
    return None if default is attrs.NOTHING else default


def type_name(cls: Any, field: str) -> str:
    """The type of a configuration key as people read it."""
    hint = get_type_hints(cls)[field]
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    return getattr(hint, "__name__", str(hint)).replace("typing.", "")
