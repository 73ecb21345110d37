"""A registry of models, and their way from the training run to a serving endpoint.

The names here are loaded on first use, so that the commands start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linnix_plugin_models.conversion import Conversion as Conversion
    from linnix_plugin_models.conversion import ConversionRequest as ConversionRequest
    from linnix_plugin_models.formats import check_weights as check_weights
    from linnix_plugin_models.mounts import PathMap as PathMap
    from linnix_plugin_models.paths import CrossPlatformPath as CrossPlatformPath
    from linnix_plugin_models.registry import Model as Model
    from linnix_plugin_models.registry import ModelRegistry as ModelRegistry
    from linnix_plugin_models.syncfile import SyncFile as SyncFile
    from linnix_plugin_models.syncfile import read_sync_file as read_sync_file
    from linnix_plugin_models.training import register_training_run as register_training_run

_HOME = {
    "Conversion": "conversion",
    "ConversionRequest": "conversion",
    "CrossPlatformPath": "paths",
    "Model": "registry",
    "ModelRegistry": "registry",
    "PathMap": "mounts",
    "SyncFile": "syncfile",
    "check_weights": "formats",
    "read_sync_file": "syncfile",
    "register_training_run": "training",
}

__all__ = [
    "Conversion",
    "ConversionRequest",
    "CrossPlatformPath",
    "Model",
    "ModelRegistry",
    "PathMap",
    "SyncFile",
    "check_weights",
    "read_sync_file",
    "register_training_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
