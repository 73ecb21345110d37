"""llama.cpp's programs and library, called in processes of their own.

Everything raises `LinnixError`, with llama.cpp's own reason, where it does not work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.checkpoint import Array, read_json
from linnix_plugin_models.formats import GGUF_FILE_TYPES

__all__ = ["Logits", "Quantizer", "convert_by_llama_cpp", "need_library", "run_logits"]

Steps = Callable[[int, int], None]

#: Lines of what a program said that are kept, and their characters.
MAX_LINES = 50
MAX_LINE = 2000

_STEP = re.compile(r"\[\s*(\d{1,6})/\s*(\d{1,6})\]")
_REASON = re.compile(r"error|fail|not |cannot|unsupported|missing|abort", re.IGNORECASE)


def need_library() -> None:
    """Say now that llama-cpp-python is missing, not after an hour."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise LinnixError(
            "llama-cpp-python is not installed, and a GGUF counts only after it ran",
            hint="pip install 'linnix-plugin-gguf[llama]'",
        )


@attrs.frozen
class Quantizer:
    """What quantizes: llama.cpp's program where the user has it, else its library."""

    program: Path | None

    @classmethod
    def find(cls, llama_cpp_dir: Path | None) -> Quantizer:
        """The program of the folder that is configured, if it is there."""
        places = ("llama-quantize", "build/bin/llama-quantize", "bin/llama-quantize")
        programs = [] if llama_cpp_dir is None else [llama_cpp_dir / place for place in places]
        return cls(next((p.absolute() for p in programs if os.access(p, os.X_OK)), None))

    def quantize(self, source: Path, target: Path, quantization: str, steps: Steps) -> None:
        """Make ``target`` of an F32, F16 or BF16 file."""
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        question: dict[str, Any]
        if self.program is None:
            types = {name: number for number, name in GGUF_FILE_TYPES.items()}
            question = {
                "do": "quantize", "source": str(source), "target": str(target),
                "type": types[quantization], "threads": threads,
            }  # fmt: skip
        else:
            words = [str(self.program), str(source), str(target), quantization, str(threads)]
            question = {"do": "run", "words": words}
        _ask(question, f"llama.cpp cannot quantize it to {quantization}", steps)
        if not target.is_file():
            raise LinnixError(f"llama.cpp made no {quantization} and does not say why")


@attrs.frozen
class Logits:
    """What a GGUF answered."""

    #: The whole text as tokens.
    tokens: list[int]
    #: A row for each of the first tokens.
    values: Array


def run_logits(model: Path, text: str, count: int, work: Path) -> Logits:
    """Have llama.cpp read a text, and answer after each of its first ``count`` tokens."""
    into = work / "logits.npy"
    said = _ask(
        {"do": "logits", "model": str(model), "text": text, "count": count, "into": str(into)},
        "llama.cpp cannot run the file that was made",
    )
    values = np.load(into)
    into.unlink()
    return Logits(said["tokens"], values)


def convert_by_llama_cpp(
    source: Path, target: Path, dtype: str, llama_cpp_dir: Path | None, why: LinnixError
) -> None:
    """Have llama.cpp's own converter make a GGUF of a model that is not converted here.

    ``dtype`` is ``F32``, ``F16``, ``BF16``, or ``auto``: of those with 16 bits the nearest.
    """
    script = llama_cpp_dir / "convert_hf_to_gguf.py" if llama_cpp_dir is not None else None
    if script is None or not script.is_file():
        raise LinnixError(
            str(why),
            hint=why.hint
            or "llama.cpp's own converter may know it: set deployment.llama_cpp_dir in sync.toml "
            "to the folder with convert_hf_to_gguf.py",
        )
    folder = source if source.is_dir() else source.parent
    _refuse_code(folder)
    words = [_python(script.parent), str(script.absolute()), str(folder.absolute())]
    words += ["--outfile", str(target.absolute()), "--outtype", dtype.lower()]
    _ask({"do": "run", "words": words}, f"{script.name} cannot convert it")
    if not target.is_file():
        raise LinnixError(f"{script} made nothing and does not say why")


def _refuse_code(folder: Path) -> None:
    """For some models the converter trusts what their files name: modules there or elsewhere."""
    # transformers also reads config.4.0.0.json, and whatever "configuration_files" names.
    for path in sorted(folder.glob("*config*.json")):
        said = read_json(path)
        for key in ("auto_map", "configuration_files"):
            if key in said:
                raise LinnixError(
                    f"{printable(path.name, 80)} names code of its own ({key}), which "
                    "llama.cpp's converter could run",
                    hint="convert it by hand if you trust it",
                )


def _python(folder: Path) -> str:
    """The Python of llama.cpp's folder, which has what its converter needs; else this one."""
    for place in (".venv/bin/python", "venv/bin/python"):
        if os.access(folder / place, os.X_OK):
            return str(folder.absolute() / place)
    return sys.executable


def _ask(question: Mapping[str, Any], trouble: str, steps: Steps | None = None) -> dict[str, Any]:
    """Ask `linnix_plugin_gguf.native`, and tell of the steps that it says it takes."""
    # -P: what is called numpy.py in the current folder is not numpy.
    words = [sys.executable, "-P", "-m", "linnix_plugin_gguf.native"]
    process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: deque[str] = deque(maxlen=MAX_LINES)
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            # Who ended before it read all has said why.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(question))
                process.stdin.close()
            while line := process.stderr.readline(MAX_LINE):
                lines.append(line.strip())
                step = _STEP.search(line)
                if step and steps is not None:
                    steps(int(step[1]), int(step[2]))
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise LinnixError(f"{trouble}: {_reason(lines, process.returncode)}")
    said = json.loads(answer) if question["do"] != "run" else {}
    assert isinstance(said, dict)
    return said


def _reason(lines: Sequence[str], code: int) -> str:
    told = [line for line in lines if line and _REASON.search(line)] or [*filter(None, lines)]
    said = printable(told[-1], 300) if told else "it does not say why"
    if code < 0:
        name = signal.strsignal(-code) or "unknown"
        return f"signal {-code} ended it ({name}); the last that it said: {said}"
    return said
