"""Every record as one JSON line: in a file that rotates, or on standard output."""

from linnix_plugin_jsonl.__about__ import __version__
from linnix_plugin_jsonl.config import JsonlConfig
from linnix_plugin_jsonl.handler import JsonlHandler

__all__ = ["JsonlConfig", "JsonlHandler", "__version__"]
