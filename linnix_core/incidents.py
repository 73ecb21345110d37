"""Alerts with one fingerprint become one incident (stub while the contract settles)."""

from __future__ import annotations

__all__ = ["IncidentView"]


class IncidentView:
    """Read-only view of incidents."""
