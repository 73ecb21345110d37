"""What Linnix sees, on the terminal: a live view, or plain lines where there is none."""

from __future__ import annotations

from linnix_plugin_console.__about__ import __version__
from linnix_plugin_console.config import ConsoleConfig
from linnix_plugin_console.handler import ConsoleHandler

__all__ = ["ConsoleConfig", "ConsoleHandler", "__version__"]
