"""BCC's Python bindings, which come from the distribution and never from PyPI."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from linnix_core import PluginUnavailable

__all__ = ["load_bcc"]

#: Where Debian and its relatives keep packages for every Python 3 of theirs.
SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")

#: Who may have installed them; packages of Debian do not say.
_TRUSTED = {None, "", "debian", "rpm"}


def load_bcc() -> Any:
    """The module ``bcc`` of the BPF Compiler Collection, which PyPI has another of.

    Raises `PluginUnavailable` with the next step.
    """
    spec = importlib.util.find_spec("bcc")
    if spec is None:
        raise _not_found()
    if (stranger := _stranger(spec)) is not None:
        raise PluginUnavailable(
            f"the package bcc that Python finds is not the BPF Compiler Collection of the "
            f"distribution: {stranger}",
            hint="pip uninstall bcc, then apt install python3-bpfcc",
        )
    try:
        return importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise PluginUnavailable(
            f"the Python bindings of BCC cannot be loaded: {error}",
            hint="apt install --reinstall python3-bpfcc libbpfcc",
        ) from error


def _not_found() -> PluginUnavailable:
    if (SYSTEM_PACKAGES / "bcc").is_dir():
        return PluginUnavailable(
            "the Python bindings of BCC are installed, but this interpreter does not see the "
            "system's packages",
            hint="install Linnix into a venv made by "
            "/usr/bin/python3 -m venv --system-site-packages",
        )
    return PluginUnavailable(
        "the Python bindings of BCC are not installed",
        hint="apt install python3-bpfcc, and run Linnix in a venv made by "
        "/usr/bin/python3 -m venv --system-site-packages",
    )


def _stranger(spec: ModuleSpec) -> str | None:
    """What gives away that it is another package, found out without running it."""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any((folder / "libbcc.py").is_file() for folder in folders):
        return f"{spec.origin} has no libbcc.py beside it"
    try:
        installer = (distribution("bcc").read_text("INSTALLER") or "").strip()
    except PackageNotFoundError:
        return None
    return None if installer in _TRUSTED else f"it was installed by {installer}"
