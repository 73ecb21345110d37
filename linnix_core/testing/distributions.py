"""Plugins for a test: distributions written to a folder, and catalogs of classes at hand.

A fake distribution is what ``pip install`` leaves behind (metadata, entry points and
modules), so it is found, loaded and refused exactly like a real one. A catalog of given
classes looks nowhere: it holds them and nothing that is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linnix_core.__about__ import __version__
from linnix_core.catalog import Catalog, PluginRecord

__all__ = ["CORE_REQUIREMENT", "catalog_of", "on_path", "write_distribution"]

_MAJOR, _MINOR = map(int, __version__.split(".")[:2])

#: What a plugin asks of the core that it is tested with.
CORE_REQUIREMENT = f"linnix-core>={_MAJOR}.{_MINOR},<{_MAJOR}.{_MINOR + 1}"


def write_distribution(
    folder: Path,
    name: str = "linnix-plugin-fake",
    version: str = "1.0",
    *,
    entry_points: Mapping[str, Mapping[str, str]] | None = None,
    requires: Sequence[str] | None = None,
    modules: Mapping[str, str] | None = None,
    summary: str = "",
) -> Path:
    """Write a distribution as if it had been installed into ``folder``, and return that.

    ``entry_points`` maps groups to ``{name: "module:Class"}``, ``modules`` file names
    (``fake.py``, ``fake/__init__.py``) to their source, which may be indented.
    ``requires`` holds whole requirements; the default is the core that is running.
    """
    info = folder / f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
    files = {folder / file: textwrap.dedent(source) for file, source in (modules or {}).items()}
    files[info / "METADATA"] = _metadata(
        name, version, summary, [CORE_REQUIREMENT] if requires is None else requires
    )
    files[info / "entry_points.txt"] = "\n".join(
        line
        for group, values in (entry_points or {}).items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in values.items()), "")
    )
    files[info / "RECORD"] = "".join(
        f"{file.relative_to(folder).as_posix()},,\n" for file in (*files, info / "RECORD")
    )
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def _metadata(name: str, version: str, summary: str, requires: Sequence[str]) -> str:
    fields = [("Metadata-Version", "2.1"), ("Name", name), ("Version", version)]
    if summary:
        fields.append(("Summary", summary))
    fields += [("Requires-Dist", requirement) for requirement in requires]
    return "".join(f"{field}: {value}\n" for field, value in fields)


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Import from ``folder`` first; afterwards the path and what came from it are gone."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if _comes_from(module, folder):
                del sys.modules[name]
        sys.path_importer_cache.pop(str(folder), None)
        importlib.invalidate_caches()


def _comes_from(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and folder in Path(file).parents


def catalog_of(given: Mapping[str, Mapping[str, Any]]) -> Catalog:
    """A catalog of nothing but these plugins: kind to name to class.

    An object that is no class counts as a plugin that was built already: its own hooks
    are called, and it takes no options.

    >>> class Mine:
    ...     "A handler."
    >>> [(record.kind, record.name) for record in catalog_of({"handlers": {"mine": Mine}})]
    [('handlers', 'mine')]
    """
    return Catalog(
        PluginRecord(
            kind=kind,
            name=name,
            value=f"{cls.__module__}:{cls.__qualname__}",
            distribution="given-by-the-test",
            version="0",
            given=cls,
        )
        for kind, plugins in given.items()
        for name, plugin in plugins.items()
        for cls in (_as_class(plugin),)
    )


def _as_class(plugin: Any) -> type:
    """The class itself, or one that always makes this one object."""
    if inspect.isclass(plugin):
        return plugin

    def make(*_: Any) -> Any:
        return plugin

    kind = type(plugin)
    body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__new__": make, "Config": None}
    return type(kind.__name__, (kind,), body)
