"""Audits of a repository before a release: open and enterprise apart, nothing personal."""

from __future__ import annotations

from linnix_plugin_audit.__about__ import __version__

__all__ = ["__version__"]
