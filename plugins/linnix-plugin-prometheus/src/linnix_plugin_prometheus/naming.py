"""Names, units and labels as Prometheus wants them, from what plugins call their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from linnix_core import Metric, Process, printable

__all__ = ["clean_labels", "clean_value", "executable_name", "family_name"]

#: Characters of a label's value, and labels of one series.
MAX_VALUE = 128
MAX_LABELS = 16

#: UCUM codes: the base unit of Prometheus, and how many of it one is.
_UNITS = {
    "s": ("seconds", 1.0),
    "ms": ("seconds", 1e-3),
    "us": ("seconds", 1e-6),
    "ns": ("seconds", 1e-9),
    "By": ("bytes", 1.0),
    "KiBy": ("bytes", 1024.0),
    "MiBy": ("bytes", 1024.0**2),
    "%": ("ratio", 0.01),
    "Cel": ("celsius", 1.0),
}

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")

# Endings that OpenMetrics keeps for the samples of a family.
_RESERVED = re.compile(r"(_(total|created|info|bucket|count|sum|gcount|gsum))+$")


def family_name(metric: Metric) -> tuple[str, float]:
    """The family of a plugin's metric, without ``_total``, and what its value times by.

    A name that begins with ``linnix_`` is taken as it is. Any other gets that in front and
    its unit, in base units, at the end.

    >>> family_name(Metric("jsonl_written_bytes", 1, "By", "counter"))
    ('linnix_jsonl_written_bytes', 1.0)
    >>> family_name(Metric("model latency", 80, "ms"))
    ('linnix_model_latency_seconds', 0.001)
    """
    name = _NOT_IN_A_NAME.sub("_", metric.name).strip("_")
    if name.startswith("linnix_"):
        unit, factor = "", 1.0
    else:
        name = f"linnix_{name}"
        unit, factor = _UNITS.get(metric.unit, ("", 1.0))
    name = _RESERVED.sub("", name)
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return _RESERVED.sub("", name[:MAX_VALUE]), factor


def clean_labels(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    r"""Labels with names that are valid and values that are harmless; the first few of many.

    >>> clean_labels({"pod name": "a\nb", "1": 7, "__x": ""})
    (('pod_name', 'a\\x0ab'), ('label_1', '7'), ('label_x', ''))
    """
    clean: dict[str, str] = {}
    for given, value in labels.items():
        name = _NOT_IN_A_NAME.sub("_", str(given))[:MAX_VALUE]
        if not name or name.startswith("__") or name[0].isdigit() or name in ("le", "quantile"):
            name = f"label_{name.lstrip('_')}"
        clean[name] = clean_value(str(value))
        if len(clean) == MAX_LABELS:
            break
    return tuple(clean.items())


def clean_value(text: str) -> str:
    """One harmless line of at most `MAX_VALUE` characters, for the value of a label."""
    return printable(text, MAX_VALUE)


def executable_name(process: Process) -> str:
    """The last part of its executable, which the kernel knows, else what it calls itself."""
    name = PurePosixPath((process.exe or "").removesuffix(" (deleted)")).name
    return clean_value(name or process.comm)
