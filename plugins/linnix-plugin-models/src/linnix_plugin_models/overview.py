"""Where everything is: files, folders, mounts, hosts, and one path as every system writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linnix_core import LinnixError, printable
from linnix_plugin_models.conversion import converters
from linnix_plugin_models.paths import CrossPlatformPath
from linnix_plugin_models.places import find_place
from linnix_plugin_models.registry import ModelRegistry
from linnix_plugin_models.syncfile import SyncFile, this_location

__all__ = ["overview", "spellings"]


def overview(registry: ModelRegistry, sync: SyncFile) -> dict[str, Any]:
    """Files and folders, mounts with their state, hosts, nodes and preferences."""
    settings = sync.deployment
    return {
        "files": {
            "registry": str(registry.path),
            "sync.toml": sync.source,
            "models": str(sync.models_dir()),
            "ollama models": _shown(settings.ollama_models_dir),
            "llama.cpp": _shown(settings.llama_cpp_dir),
            "converters": ", ".join(sorted(converters())) or "none",
        },
        "mounts": {
            name: f"{mount.local_path} = {mount.remote_path}"
            f"{f' of {mount.host}' if mount.host else ''} "
            f"({'there' if sync.mount_point(name).is_accessible() else 'not there'})"
            f"{f': {mount.description}' if mount.description else ''}"
            for name, mount in sync.mounts.items()
        },
        "hosts": {
            name: f"{f'{host.username}@' if host.username else ''}{host.hostname}"
            f"{f':{host.port}' if host.port else ''} ({host.platform})"
            for name, host in sync.hosts.items()
        },
        "halext nodes": dict(settings.halext_nodes),
        "preferences": {
            "transfer method": sync.preferences.transfer_method,
            "ssh timeout": f"{sync.preferences.ssh_timeout:g} s",
            "retries": str(sync.preferences.retries),
        },
    }


def _shown(path: object) -> str:
    return "" if path is None else str(path)


def spellings(sync: SyncFile, text: str, location: str | None) -> dict[str, str | None]:
    """One path as Windows, Git Bash, WSL, SFTP and shells write it, and where it is seen here."""
    place = find_place(text, location, sync)
    try:
        path = place.remote or CrossPlatformPath(place.path)
    except ValueError as error:
        raise LinnixError(f"{printable(text, 200)!r} is no path: {error}") from None
    forms: dict[str, Callable[[], str]] = {
        "windows": lambda: path.to_windows("backslash"),
        "windows_forward": lambda: path.to_windows("forward"),
        "windows_long": path.to_windows_long,
        "posix": path.to_posix,
        "wsl": path.to_wsl,
        "ssh": path.to_ssh_path,
        "sftp": path.to_sftp_path,
        "shell": path.for_shell_escape,
        "powershell": lambda: path.for_shell_escape("powershell"),
        "cmd": lambda: path.for_shell_escape("cmd"),
    }
    found: dict[str, str | None] = {"location": place.location}
    for name, form in forms.items():
        try:
            found[name] = form()
        except ValueError:
            found[name] = None
    local = place.local if place.local is not None else None
    found["here"] = str(local) if local is not None and place.location != this_location() else None
    if place.location == this_location():
        seen = sync.path_map().to_remote(local) if local is not None else None
        found["remote"] = f"{seen[0].name}: {seen[1]}" if seen else None
    return found
