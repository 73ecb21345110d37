"""The two files that the commands work with: the registry and ``sync.toml``."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnix_core import LinnixError

if TYPE_CHECKING:
    from linnix_plugin_models.registry import ModelRegistry
    from linnix_plugin_models.syncfile import SyncFile

__all__ = ["Asked", "Files", "file_group", "find_sync_file", "pass_files"]


def find_sync_file() -> Path | None:
    """``LINNIX_SYNC_CONFIG``, else ``linnix/sync.toml`` and ``hafs/sync.toml`` of the user."""
    if named := os.environ.get("LINNIX_SYNC_CONFIG"):
        return Path(named).expanduser()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (user / "linnix" / "sync.toml", user / "hafs" / "sync.toml"):
        if path.is_file():
            return path
    return None


class Files:
    """Both, each read when it is needed."""

    def __init__(self, registry: Path | None = None, sync: Path | None = None) -> None:
        self._registry = registry
        self._sync = sync or find_sync_file()

    @functools.cached_property
    def sync(self) -> SyncFile:
        """``sync.toml``, or its defaults. Raises `ConfigError` with every mistake."""
        from linnix_plugin_models.syncfile import SyncFile, read_sync_file

        return read_sync_file(self._sync) if self._sync is not None else SyncFile()

    @functools.cached_property
    def registry(self) -> ModelRegistry:
        """Named here, in the environment, in ``sync.toml``, or at its usual place."""
        from linnix_plugin_models.registry import ModelRegistry

        named = self._registry
        if named is None and not os.environ.get("LINNIX_MODELS_REGISTRY"):
            named = self._named_in_sync_file()
        return ModelRegistry(named)

    def _named_in_sync_file(self) -> Path | None:
        """Only this key, so that a list of models does not wait for everything to be checked."""
        import tomllib

        try:
            text = self._sync.read_text(encoding="utf-8") if self._sync is not None else ""
            named = tomllib.loads(text).get("deployment", {}).get("registry")
        except (OSError, ValueError, AttributeError):
            return self.sync.deployment.registry  # which says what is wrong
        return Path(named).expanduser() if isinstance(named, str) and named else None


def file_group(name: str, summary: str) -> click.Group:
    """A group with ``--registry`` and ``--sync-config``, which `pass_files` hands on."""
    path = click.Path(path_type=Path)

    @click.group(name, help=summary)
    @click.option("--registry", type=path, help="The registry's file.")
    @click.option("--sync-config", type=path, help="In place of the user's sync.toml.")
    @click.pass_context
    def group(context: click.Context, registry: Path | None, sync_config: Path | None) -> None:
        context.obj = Files(registry, sync_config)

    return group


pass_files = click.make_pass_decorator(Files)


class Asked(LinnixError):
    """A mistake in what was typed."""

    exit_code = 2
