"""The deployer: a model in a GGUF file behind llama.cpp's HTTP server, whichever there is."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
from attrs.validators import ge, optional

from linnix_core import LinnixError, ModelSpec
from linnix_plugin_models.server_deployer import Plan, ServerConfig, ServerDeployer

__all__ = ["LlamaCppDeployer", "LlamaCppDeployerConfig"]

_HINT = "pip install xllamacpp, or put llama-server on PATH"

#: Where builds of llama.cpp put their programs, below its folder.
_BUILT = (".", "bin", "build/bin")

#: What the Python server needs beside the library, and would not say before it fails.
_OF_THE_PYTHON_SERVER = (
    "llama_cpp",
    "fastapi",
    "pydantic_settings",
    "sse_starlette",
    "starlette_context",
    "uvicorn",
)

#: Variables that the Python server believes more than its arguments.
_MISLEADING = ("HOST", "PORT", "CONFIG_FILE")


@attrs.frozen(kw_only=True)
class LlamaCppDeployerConfig(ServerConfig):
    """The keys of ``[deployers.llama-cpp]``."""

    server: Literal["auto", "llama-server", "xllamacpp", "llama-cpp-python"] = attrs.field(
        default="auto",
        metadata={"help": "which server; auto takes the first of these that is here"},
    )
    llama_cpp_dir: Path | None = attrs.field(
        default=None,
        metadata={"help": "folder of llama.cpp to take llama-server from, in place of PATH"},
    )
    context: int = attrs.field(
        default=4096,
        validator=ge(0),
        metadata={"help": "tokens of the context; 0 is what the model was trained with"},
    )
    threads: int | None = attrs.field(
        default=None,
        validator=optional(ge(1)),
        metadata={"help": "threads that compute; else llama.cpp decides"},
    )


class LlamaCppDeployer(ServerDeployer):
    """Serve models in GGUF files with llama.cpp, one process each."""

    Config = LlamaCppDeployerConfig
    NAME = "llama-cpp"
    FORMATS = ("gguf",)

    def plan(self, spec: ModelSpec, path: Path, config: LlamaCppDeployerConfig) -> Plan:
        """The first of the servers that is here, or the one that is wanted."""
        if path.is_dir():
            raise LinnixError(f"{path} is a folder, and llama.cpp serves one GGUF file")
        if config.server in ("auto", "llama-server"):
            program = _llama_server(config.llama_cpp_dir)
            if program is not None:
                return _of_llama_cpp("llama-server", [program], spec, path, config)
            if config.server == "llama-server":
                raise LinnixError("llama-server is not on PATH", hint="set llama_cpp_dir")
        if config.server in ("auto", "xllamacpp") and _is_here("xllamacpp"):
            if config.arguments:
                raise LinnixError(
                    "xllamacpp's server has no command line, so arguments cannot be handed on",
                    hint="they need llama-server on PATH, or in llama_cpp_dir",
                )
            launcher = [sys.executable, "-P", "-m", "linnix_plugin_llama_cpp.xserver"]
            return _of_llama_cpp("xllamacpp", launcher, spec, path, config)
        if config.server in ("auto", "llama-cpp-python"):
            missing = [name for name in _OF_THE_PYTHON_SERVER if not _is_here(name)]
            if not missing:
                return _of_python(spec, path, config)
            if config.server == "llama-cpp-python":
                raise LinnixError(
                    f"llama-cpp-python's server is not complete: {', '.join(missing)} missing",
                    hint='pip install "llama-cpp-python[server]"',
                )
        if config.server == "xllamacpp":
            raise LinnixError("xllamacpp is not installed", hint="pip install xllamacpp")
        raise LinnixError("there is no server of llama.cpp here", hint=_HINT)


def _of_llama_cpp(
    program: str, begin: Sequence[str], spec: ModelSpec, path: Path, config: LlamaCppDeployerConfig
) -> Plan:
    """llama.cpp's own server, and what has the same arguments."""
    threads = [] if config.threads is None else ["--threads", str(config.threads)]

    def command(port: int) -> list[str]:
        return [
            *begin,
            *("--model", str(path), "--alias", spec.name),
            *("--host", config.host, "--port", str(port)),
            # One request at a time has all of the context.
            *("--ctx-size", str(config.context), "--parallel", "1"),
            *threads,
            *config.arguments,
        ]

    return Plan(command=command, program=program, api_key_variable="LLAMA_API_KEY")


def _of_python(spec: ModelSpec, path: Path, config: LlamaCppDeployerConfig) -> Plan:
    unset = [part for name in _MISLEADING for part in ("--unset", name)]
    env = shutil.which("env") or "/usr/bin/env"
    threads = [] if config.threads is None else ["--n_threads", str(config.threads)]

    def command(port: int) -> list[str]:
        return [
            *(env, *unset, sys.executable, "-P", "-m", "llama_cpp.server"),
            *("--model", str(path), "--model_alias", spec.name),
            *("--host", config.host, "--port", str(port)),
            *("--n_ctx", str(config.context)),
            *threads,
            *config.arguments,
        ]

    return Plan(command=command, program="llama-cpp-python", api_key_variable="API_KEY")


def _llama_server(folder: Path | None) -> str | None:
    if folder is None:
        return shutil.which("llama-server")
    folder = folder.expanduser().absolute()
    for below in _BUILT:
        found = shutil.which("llama-server", path=str(folder / below))
        if found is not None:
            return found
    raise LinnixError(
        f"there is no llama-server in {folder}", hint="build it there, or leave llama_cpp_dir out"
    )


def _is_here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
