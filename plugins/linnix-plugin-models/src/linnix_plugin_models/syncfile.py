"""``sync.toml``: mounts, hosts, rules of what is copied where, deployment and preferences.

Read completely and strictly: an unknown key is a mistake, and every mistake is reported at once.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from linnix_core import ConfigError, Duration, LinnixError
from linnix_core.commands import Problem, structure
from linnix_plugin_models.files import find_sync_file
from linnix_plugin_models.mounts import MountPoint, PathMap
from linnix_plugin_models.paths import CrossPlatformPath, Platform, this_platform

__all__ = [
    "DeploymentSettings",
    "Host",
    "MountSettings",
    "Preferences",
    "Rule",
    "SyncFile",
    "read_sync_file",
]

_HOSTNAME = re.compile(r"[A-Za-z0-9_\[:][A-Za-z0-9._:%\]-]*")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\ -]*")


def _filled(instance: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not value.strip():
        raise ValueError(f"{attribute.name} must not be empty")


def _hostname(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    # It stands in a command line: one that begins with a dash would be an option.
    if not _HOSTNAME.fullmatch(value):
        raise ValueError(f"{attribute.name} must be a host name or an address, got {value!r}")


def _username(instance: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not _USERNAME.fullmatch(value):
        raise ValueError(f"{attribute.name} must be the name of an account, got {value!r}")


def _port(instance: Any, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 < value < 65536:
        raise ValueError(f"{attribute.name} must be between 1 and 65535, got {value}")


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0, got {value:g}")


def _retries(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 <= value <= 100:
        raise ValueError(f"{attribute.name} must be between 0 and 100, got {value}")


def _urls(instance: Any, attribute: attrs.Attribute[Any], value: Mapping[str, str]) -> None:
    for name, url in value.items():
        if not re.fullmatch(r"https?://\S+", url):
            raise ValueError(f"{attribute.name} must hold http:// or https:// addresses: {name}")


@attrs.frozen(kw_only=True)
class MountSettings:
    """``[mounts.NAME]``"""

    local_path: Path = attrs.field(metadata={"help": "where this machine shows it"})
    remote_path: str = attrs.field(
        validator=_filled, metadata={"help": "the same folder as its own host calls it"}
    )
    description: str = attrs.field(default="", metadata={"help": "shown by linnix models paths"})
    host: str | None = attrs.field(
        default=None, metadata={"help": "whose folder it is; without it, any host's"}
    )


@attrs.frozen(kw_only=True)
class Host:
    """``[hosts.NAME]``"""

    hostname: str = attrs.field(
        validator=_hostname, metadata={"help": "its name or address, or its name in ~/.ssh/config"}
    )
    username: str | None = attrs.field(
        default=None, validator=_username, metadata={"help": "the account there"}
    )
    platform: Platform = attrs.field(default="linux", metadata={"help": "linux, mac or windows"})
    ssh_key: Path | None = attrs.field(default=None, metadata={"help": "the private key to offer"})
    port: int | None = attrs.field(
        default=None, validator=_port, metadata={"help": "where its SSH server listens"}
    )
    locations: tuple[str, ...] = attrs.field(
        default=(), metadata={"help": "locations of the registry that are this host"}
    )


@attrs.frozen(kw_only=True)
class Rule:
    """``[sync.NAME]``"""

    source: Path = attrs.field(metadata={"help": "the folder here"})
    destinations: tuple[str, ...] = attrs.field(
        metadata={"help": "MOUNT-OR-HOST:/path, each gets a copy"}
    )
    exclude_patterns: tuple[str, ...] = attrs.field(
        default=(), metadata={"help": "names or paths that are left out; * ? [ ] as in a shell"}
    )


@attrs.frozen(kw_only=True)
class DeploymentSettings:
    """``[deployment]``"""

    local_models_dir: Path | None = attrs.field(
        default=None, metadata={"help": "where models are pulled to"}
    )
    ollama_models_dir: Path | None = attrs.field(
        default=None, metadata={"help": "told to the deployer ollama"}
    )
    llama_cpp_dir: Path | None = attrs.field(
        default=None, metadata={"help": "told to converters and to the deployer llama-cpp"}
    )
    halext_nodes: dict[str, str] = attrs.field(
        factory=dict, validator=_urls, metadata={"help": "node → address of its API"}
    )
    registry: Path | None = attrs.field(default=None, metadata={"help": "the registry's file"})


@attrs.frozen(kw_only=True)
class Preferences:
    """``[preferences]``"""

    transfer_method: Literal["mount", "ssh", "rsync"] = attrs.field(
        default="mount",
        metadata={"help": "mount: mounts first, then SSH; ssh: SFTP; rsync: where both have it"},
    )
    ssh_timeout: Duration = attrs.field(
        default=Duration(300.0),
        validator=_positive,
        metadata={"help": "without a byte from the other side, until it is given up"},
    )
    retry_on_failure: bool = attrs.field(
        default=True, metadata={"help": "go on where a broken connection ended"}
    )
    max_retries: int = attrs.field(
        default=3, validator=_retries, metadata={"help": "how often in a row"}
    )
    ssh_config: Path | None = attrs.field(
        default=None, metadata={"help": "in place of ~/.ssh/config"}
    )

    @property
    def retries(self) -> int:
        """How often a broken transfer is taken up again."""
        return self.max_retries if self.retry_on_failure else 0


@attrs.frozen(kw_only=True)
class SyncFile:
    """Everything that ``sync.toml`` holds."""

    mounts: dict[str, MountSettings] = attrs.field(factory=dict)
    hosts: dict[str, Host] = attrs.field(factory=dict)
    sync: dict[str, Rule] = attrs.field(factory=dict)
    deployment: DeploymentSettings = attrs.field(factory=DeploymentSettings)
    preferences: Preferences = attrs.field(factory=Preferences)
    source: str = attrs.field(default="defaults", init=False)

    def path_map(self) -> PathMap:
        """The mounts, as something that translates."""
        return PathMap(self.mount_point(name) for name in self.mounts)

    def mount_point(self, name: str) -> MountPoint:
        """One mount by its name."""
        mount = self.mounts[name]
        platform = self.hosts[mount.host].platform if mount.host else _platform(mount.remote_path)
        return MountPoint(
            name=name,
            local_path=mount.local_path,
            remote_path=CrossPlatformPath(mount.remote_path, platform),
            host=mount.host,
        )

    def models_dir(self) -> Path:
        """Where models are pulled to; ``$XDG_DATA_HOME/linnix/models`` unless told."""
        if self.deployment.local_models_dir is not None:
            return self.deployment.local_models_dir
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(data).expanduser() / "linnix" / "models"

    def host_of(self, location: str) -> tuple[str, Host] | None:
        """The host that a location of the registry is.

        The one that lists it, the one of that name, the only one of that platform, or the
        only one whose name begins with it (``cloud`` → ``cloud-gpu``).
        """
        listed = [name for name, host in self.hosts.items() if location in host.locations]
        named = [name for name in self.hosts if name == location]
        alike = [name for name, host in self.hosts.items() if host.platform == location]
        begun = [name for name in self.hosts if name.startswith(f"{location}-")]
        for found in (listed, named, alike, begun):
            if len(found) == 1:
                return found[0], self.hosts[found[0]]
        return None

    def platform_of(self, location: str) -> Platform | None:
        """The platform of a location, None where nothing tells."""
        if location in ("mac", "linux", "windows"):
            return location  # type: ignore[return-value]
        found = self.host_of(location)
        if found is not None:
            return found[1].platform
        return "linux" if location == "cloud" else None

    def node_url(self, name: str) -> str:
        """The address of a halext node: itself, or what ``halext_nodes`` calls so."""
        if "://" in name:
            return name
        if name in self.deployment.halext_nodes:
            return self.deployment.halext_nodes[name]
        known = ", ".join(sorted(self.deployment.halext_nodes)) or "none"
        raise LinnixError(
            f"{name!r} is no address and no halext node of {self.source} (known: {known})",
            hint="give its URL, or add it under [deployment.halext_nodes]",
        )


def read_sync_file(path: Path | None = None) -> SyncFile:
    """Read ``path``, or the file that is found; the defaults without one.

    Raises `ConfigError` with every mistake.
    """
    path = path or find_sync_file()
    if path is None:
        return SyncFile()
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), error.strerror or str(error))]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("TOML", str(error))], source=str(path)) from None
    problems: list[Problem] = []
    made = _interpret(tree, problems)
    if problems or made is None:
        raise ConfigError(problems, source=str(path))
    object.__setattr__(made, "source", str(path))
    return made


def _interpret(tree: Mapping[str, Any], problems: list[Problem]) -> SyncFile | None:
    found: list[Problem] = []
    made: SyncFile | None = structure(SyncFile, tree, "", found)
    problems.extend(problem._replace(path=problem.path.lstrip(".")) for problem in found)
    if made is None:
        return None
    for name, mount in made.mounts.items():
        if mount.host is not None and mount.host not in made.hosts:
            problems.append(Problem(f"mounts.{name}.host", f"there is no [hosts.{mount.host}]"))
            continue
        try:
            remote = made.mount_point(name).remote_path
        except ValueError as error:
            problems.append(Problem(f"mounts.{name}.remote_path", str(error)))
            continue
        if not remote.is_absolute:
            problems.append(Problem(f"mounts.{name}.remote_path", "must be absolute"))
    for name, rule in made.sync.items():
        for number, destination in enumerate(rule.destinations):
            where, colon, path = destination.partition(":")
            if not colon or not path or where not in {*made.mounts, *made.hosts}:
                problems.append(
                    Problem(
                        f"sync.{name}.destinations[{number}]",
                        f"expected MOUNT-OR-HOST:/path, got {destination!r}",
                    )
                )
    return made


def _platform(remote_path: str) -> Platform:
    path = CrossPlatformPath(remote_path, None)
    return "windows" if path.platform == "windows" else "linux"


def this_location() -> str:
    """What the registry calls this machine."""
    return this_platform()
