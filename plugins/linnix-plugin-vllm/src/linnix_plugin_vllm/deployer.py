"""The deployer: a folder with a checkpoint or an adapter behind vLLM's OpenAI-compatible server."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import ge, gt, optional

from linnix_core import (
    Deployment,
    Duration,
    LinnixError,
    ModelSpec,
    hookimpl,
    printable,
)
from linnix_plugin_models.server_deployer import Plan, ServerConfig, ServerDeployer
from linnix_plugin_models.servers import Launch, Server
from linnix_plugin_openai import completed, parse_address

__all__ = ["VllmDeployer", "VllmDeployerConfig"]

#: Runs wherever vLLM can be imported: ``vllm serve`` also wants its metadata, which builds
#: under another name do not have.
_MODULE = "vllm.entrypoints.openai.api_server"

#: What is served is here: nothing is downloaded, and nobody is told that it is used.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

#: Formats of models that may run somewhere else.
_ELSEWHERE = ("safetensors", "gguf", "pytorch")

_HINT = "pip install vllm, name the python that has it, or set url to a server that runs"


@attrs.frozen(kw_only=True)
class VllmDeployerConfig(ServerConfig):
    """The keys of ``[deployers.vllm]``."""

    start_timeout: Duration = attrs.field(
        default=Duration(540.0),
        validator=gt(Duration(0.0)),
        metadata={"help": "time for the model to be loaded and to answer"},
    )
    url: str | None = attrs.field(
        default=None,
        metadata={"help": "address of a vLLM server that runs already; nothing is started"},
    )
    model: str | None = attrs.field(
        default=None,
        metadata={"help": "what the server at url calls the model; else the deployment's name"},
    )
    plain_http: bool = attrs.field(
        default=False, metadata={"help": "allow url to be http to another machine"}
    )
    python: Path | None = attrs.field(
        default=None, metadata={"help": "the Python that has vLLM, in place of Linnix's own"}
    )
    context: int | None = attrs.field(
        default=None,
        validator=optional(ge(1)),
        metadata={"help": "tokens of the context; else what the model was trained with"},
    )
    dtype: str = attrs.field(default="auto", metadata={"help": "type of the weights in memory"})
    base: str | None = attrs.field(
        default=None, metadata={"help": "folder of the model that an adapter is for"}
    )
    lora: dict[str, str] = attrs.field(
        factory=dict,
        metadata={"help": "adapters to serve beside the model: the name and folder of each"},
    )


class VllmDeployer(ServerDeployer):
    """Serve checkpoints and LoRA adapters with vLLM, or use a server that does so already."""

    Config = VllmDeployerConfig
    NAME = "vllm"
    FORMATS = ("safetensors",)

    @hookimpl
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Have the model served here, or see that the server at ``url`` serves it."""
        if spec.format not in _ELSEWHERE:
            return None
        config = self.configured(spec.options)
        if config.url is None:
            return super().linnix_deploy(spec)
        self.check_name(spec.name)
        # What lies there has no digest that could be looked at.
        details = {
            "url": _endpoint(config.url, config.plain_http),
            "model": config.model or spec.name,
            "model_id": spec.options.get("model_id"),
            "program": "vLLM at url",
        }
        there = self.deployment_of(Server(name=spec.name, launch=Launch(details=details)))
        health = self.asked(there, config.probe_timeout)
        if health.status == "failed":
            raise LinnixError(f"{printable(config.url, 200)}: {health.reason}")
        return self.deployment_of(self.servers.remember(spec.name, details=details))

    def is_found(self, server: Server) -> bool:
        """A server at an address is found by asking it."""
        if server.launch.command:
            return super().is_found(server)
        try:
            return self.has(self.deployment_of(server))
        except LinnixError:
            return False

    def plan(self, spec: ModelSpec, path: Path, config: VllmDeployerConfig) -> Plan:
        """vLLM's server for a checkpoint, or for the model that an adapter is for."""
        if not path.is_dir():
            raise LinnixError(f"{path} is a file, and vLLM serves the folder of a checkpoint")
        lora = dict(config.lora)
        model, name = str(path), spec.name
        adapter = _adapter(path)
        if adapter is not None:
            model = config.base or str(adapter.get("base_model_name_or_path") or "")
            if not model:
                raise LinnixError(
                    f"{path} is an adapter that does not say for which model",
                    hint="name its folder with --option base=FOLDER",
                )
            lora[spec.name] = str(path)
            name = f"{spec.name}-base"
        elif not (path / "config.json").is_file():
            raise LinnixError(f"{path} has no config.json, so it is no checkpoint of transformers")
        begin = _program(config.python, model)
        more = [] if config.context is None else ["--max-model-len", str(config.context)]
        if lora:
            more += ["--enable-lora", "--lora-modules"]
            more += [f"{alias}={Path(folder).expanduser()}" for alias, folder in lora.items()]

        def command(port: int) -> list[str]:
            return [
                *begin,
                *("--served-model-name", name),
                *("--host", config.host, "--port", str(port), "--dtype", config.dtype),
                *more,
                *config.arguments,
            ]

        return Plan(
            command=command,
            program="vLLM",
            api_key_variable="VLLM_API_KEY",
            environment=_ENVIRONMENT,
        )


def _program(python: Path | None, model: str) -> list[str]:
    """What to run, with the model as that wants to be told of it."""
    if python is not None:
        found = shutil.which(str(python.expanduser()))
        if found is None:
            raise LinnixError(f"there is no program {python}", hint=_HINT)
        return [found, "-m", _MODULE, "--model", model]
    if importlib.util.find_spec("vllm") is not None:
        return [sys.executable, "-m", _MODULE, "--model", model]
    found = shutil.which("vllm")
    if found is None:
        raise LinnixError("vLLM is not here", hint=_HINT)
    return [found, "serve", model]


def _adapter(folder: Path) -> Mapping[str, Any] | None:
    """What an adapter says of itself; None for a checkpoint."""
    path = folder / "adapter_config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise LinnixError(f"{path} cannot be read: {printable(str(error), 200)}") from None
    if not isinstance(said, dict):
        raise LinnixError(f"{path} is no description of an adapter")
    return said


def _endpoint(url: str, plain_http: bool) -> str:
    try:
        address = parse_address(url, plain_http=plain_http)
    except ValueError as error:
        raise LinnixError(f"url {error}") from None
    return completed(address).removesuffix("/chat/completions")
