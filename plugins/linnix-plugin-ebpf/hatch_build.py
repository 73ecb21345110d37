"""Compiles the BPF program when a wheel is built or the plugin is installed as editable.

The compiler is a clang: the one that the environment variable ``LINNIX_CLANG`` names, else
``clang`` on the PATH. Where that is missing or cannot compile for BPF, the build requires
``ziglang``, a clang that comes as a wheel of 90 MB; it is asked for only then.

Next to the source there are then the object, its hash as ``sha256sum`` writes it, and a
record of what the object was made from. While all of that is unchanged, nothing is compiled
and no compiler is needed.
"""  # noqa: INP001 - build backends load this file by its path

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "src/linnix_plugin_ebpf/bpf"
SOURCE = "linnix.bpf.c"
OBJECT = "linnix.bpf.o"
HASH = "linnix.bpf.o.sha256"
RECORD = "linnix.bpf.o.record"

ZIGLANG = "ziglang>=0.14"

#: One object for every little-endian machine, so the wheel is for any platform.
CLANG_TARGET = ["--target=bpfel"]
ZIG_TARGET = ["-target", "bpfel-freestanding"]

#: The same for both compilers.
OPTIONS = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-O2",
    # BTF, which relocates the programs to the running kernel, is made from debug information.
    "-g",
    # Kernels from 4.14 on load v2. Newer compilers would choose v3, and with it atomic
    # operations that no kernel before 5.12 loads.
    "-mcpu=v2",
    # No header of the machine or of the compiler, and no path of either in the object.
    "-ffreestanding",
    "-nostdinc",
    "-ffile-compilation-dir=.",
    # Nothing that a loader of BPF has no use for.
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
]

#: Whoever compiles this compiles the real program.
TRIAL = b"""
struct task_struct { int pid; } __attribute__((preserve_access_index));
int trial(struct task_struct *task) { return __builtin_preserve_field_info(task->pid, 0); }
"""


class BpfBuildHook(BuildHookInterface[BuilderConfig]):
    """Makes the object before hatchling collects the files of a wheel."""

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling: ziglang, where nothing else compiles."""
        return [] if self._is_current() or self._clang() else [ZIGLANG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the object is the one that these sources give."""
        if not self._is_current():
            self._compile()

    def _is_current(self) -> bool:
        record = self._path(RECORD)
        return record.is_file() and record.read_text() == self._inputs() + self._outputs()

    def _compile(self) -> None:
        compiler = self._compiler()
        inputs = self._inputs()
        with tempfile.TemporaryDirectory(prefix="linnix-bpf-") as scratch:
            made = Path(scratch, OBJECT)
            done = subprocess.run(  # noqa: S603 - the compiler of the person who builds
                [*compiler, *OPTIONS, "-c", f"{FOLDER}/{SOURCE}", "-o", str(made)],
                cwd=self.root,
                # Zig would leave a copy of all that it makes in the home folder.
                env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch},
                capture_output=True,
                check=False,
            )
            messages = done.stderr.decode(errors="replace")
            if done.returncode != 0:
                self.app.abort(f"The BPF program does not compile:\n{messages}")
            if messages:
                self.app.display_warning(messages)
            content = made.read_bytes()
        # The record comes last: whatever stops this midway, the next build compiles again.
        self._path(RECORD).unlink(missing_ok=True)
        self._path(OBJECT).write_bytes(content)
        self._path(HASH).write_text(_hash_line(self._path(OBJECT)))
        self._path(RECORD).write_text(inputs + self._outputs())

    def _compiler(self) -> list[str]:
        clang = self._clang()
        if clang is not None:
            return [clang, *CLANG_TARGET]
        if importlib.util.find_spec("ziglang") is None:
            self.app.abort(
                "linnix-plugin-ebpf compiles its BPF program when it is built, and there is no "
                "compiler for it: install clang (Debian and Ubuntu: apt install clang), or name "
                "one in LINNIX_CLANG, or install ziglang beside hatchling (pip install "
                f"'{ZIGLANG}')."
            )
        return [sys.executable, "-m", "ziglang", "cc", *ZIG_TARGET]

    def _clang(self) -> str | None:
        """A clang that compiles for BPF, if there is one."""
        named = os.environ.get("LINNIX_CLANG")
        clang = named or shutil.which("clang")
        if clang is None:
            return None
        try:
            trial = subprocess.run(  # noqa: S603 - the compiler of the person who builds
                [clang, *CLANG_TARGET, *OPTIONS, "-x", "c", "-c", "-", "-o", "-"],
                cwd=self.root,
                input=TRIAL,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            works, problem = False, str(error)
        else:
            works = trial.stdout.startswith(b"\x7fELF")
            problem = trial.stderr.decode(errors="replace")
        if named and not works:
            self.app.abort(
                f"LINNIX_CLANG names {named!r}, which cannot compile for BPF: name a clang of "
                f"version 12 or newer, or unset the variable.\n{problem}"
            )
        return clang if works else None

    def _inputs(self) -> str:
        """A line for each file that decides what the object is."""
        sources = sorted(self._path(".").glob("*.[ch]"))
        return "".join(map(_hash_line, [Path(self.root, "hatch_build.py"), *sources]))

    def _outputs(self) -> str:
        made = [self._path(OBJECT), self._path(HASH)]
        return "".join(_hash_line(file) for file in made if file.is_file())

    def _path(self, name: str) -> Path:
        return Path(self.root, FOLDER, name)


def _hash_line(file: Path) -> str:
    return f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
