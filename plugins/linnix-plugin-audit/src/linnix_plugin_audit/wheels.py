"""What was built: wheels and source distributions, looked at without installing them."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from email.parser import BytesParser
from pathlib import Path
from typing import IO

import attrs

from linnix_plugin_audit.artefacts import begins_as, named_artefact
from linnix_plugin_audit.code import imports
from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.licences import licence_findings
from linnix_plugin_audit.rulefile import Rules
from linnix_plugin_audit.tree import normal, required

__all__ = ["wheel_findings"]

#: What reading an archive that somebody broke can raise; zlib's error is a plain Exception.
_BROKEN = (
    OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, tarfile.TarError,
    zlib.error, lzma.LZMAError,
)  # fmt: skip

#: Of each file so much is looked at.
_MAX_BYTES = 2**20


def wheel_findings(file: Path, rules: Rules, modules: Mapping[str, str]) -> list[Finding]:
    """Everything that an open distribution must not hold and this file does."""
    try:
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                sizes = {each.filename: each.file_size for each in archive.infolist()}
                return _findings(file.name, sizes, archive.open, rules, modules)
        with tarfile.open(file) as packed:
            members = {each.name: each for each in packed.getmembers() if each.isreg()}
            sizes = {name: each.size for name, each in members.items()}
            return _findings(
                file.name,
                sizes,
                lambda name: packed.extractfile(members[name]) or io.BytesIO(),
                rules,
                modules,
            )
    except _BROKEN as error:
        why = f"cannot be read: {error}"
        return [Finding(file.name, rule="unreadable", message=why, where=file.name)]


def _findings(
    wheel: str,
    sizes: Mapping[str, int],
    opened: Callable[[str], IO[bytes]],
    rules: Rules,
    modules: Mapping[str, str],
) -> list[Finding]:
    def read(name: str) -> bytes:
        with opened(name) as file:
            return file.read(_MAX_BYTES)

    # The one of the distribution itself is the one that lies highest.
    names = [each for each in sizes if each.endswith((".dist-info/METADATA", "/PKG-INFO"))]
    described = min(names, key=lambda name: name.count("/"), default=None)
    if described is None:
        return [Finding("", rule="unreadable", message="has no metadata", where=wheel)]
    metadata = BytesParser().parsebytes(read(described), headersonly=True)
    marker = normal(rules.editions.marker)
    needs = {
        required(line) for line in metadata.get_all("Requires-Dist", ()) if "extra" not in line
    }
    enterprise = marker in needs or normal(metadata.get("Name", "")) == marker
    found = list(licence_findings(rules, enterprise, metadata.get("License-Expression"), described))
    if not enterprise:
        found += [
            Finding(described, rule="enterprise-requirement", message=f"requires {name}")
            for name in sorted(needs & set(modules.values()))
        ]
    for name, size in sizes.items():
        found += _of_file(name, size, read, rules, {} if enterprise else modules, enterprise)
    return [attrs.evolve(each, where=wheel) for each in found]


def _of_file(
    name: str,
    size: int,
    read: Callable[[str], bytes],
    rules: Rules,
    modules: Mapping[str, str],
    enterprise: bool,
) -> Iterator[Finding]:
    artefact = named_artefact(rules, name, enterprise)
    data = b"" if enterprise else read(name)
    if artefact is None and not enterprise:
        artefact = begins_as(rules, data)
    if artefact is not None:
        yield Finding(name, rule=artefact.rule, message=artefact.message, size=size)
    if enterprise:
        return
    if size > rules.limits.file:
        message = f"{size:,} bytes, and {rules.limits.file:,} are the limit"
        yield Finding(name, rule="large-file", message=message, size=size)
    if name.endswith(".py"):
        for line, module in imports(data.decode("utf-8", "replace")):
            if module in modules:
                message = f"imports {module} of {modules[module]}"
                yield Finding(name, line, "enterprise-import", message)
            elif module in rules.imports.training:
                yield Finding(name, line, "training-import", f"imports {module}, which trains")
