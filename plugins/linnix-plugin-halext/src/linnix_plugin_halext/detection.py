"""What an address is: an Ollama server, a backend that knows nodes, or a gateway to them."""

from __future__ import annotations

from contextlib import closing
from typing import Literal

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_halext.config import HalextConfig
from linnix_plugin_halext.gateway import Gateway

__all__ = ["Found", "detect"]

QUICK_S = 10.0


@attrs.frozen
class Found:
    """What is at an address; ``url`` is where the API of that kind begins."""

    kind: Literal["ollama", "backend", "gateway"]
    url: str


def detect(config: HalextConfig, address: str, *, is_named: bool = True) -> Found:
    """Find out what is at ``address``, which may end in ``/api`` or ``/v1``.

    A gateway is told its key, and a node that ``is_named`` by whoever deploys, where it asks
    for one; nobody else hears a secret. Raises `LinnixError`.
    """
    root = address.removesuffix("/v1").removesuffix("/api")
    moved = ""
    with closing(config.wire(root)) as wire:
        for prefix in ("/api", ""):
            answer = wire.get(f"{root}{prefix}/version", QUICK_S)
            if answer.status in (401, 403) and is_named and config.node_key is not None:
                with closing(config.asking_node(root, is_named=True)) as with_key:
                    answer = with_key.get(f"{root}{prefix}/version", QUICK_S)
            if isinstance(answer.document.get("version"), str) and answer.is_success:
                if "api_name" in answer.document:
                    return Found("backend", f"{root}{prefix}")
                if prefix:
                    return Found("ollama", root)
            if 300 <= answer.status < 400:
                moved = printable(answer.headers.get("location", ""), 120)
    if address.endswith("/v1"):
        with closing(Gateway(config, address)) as gateway:
            if gateway.models() is not None:
                return Found("gateway", gateway.url)
    if moved:
        raise LinnixError(
            f"{address} sends elsewhere: {moved}", hint="name that address: nothing is followed"
        )
    raise LinnixError(
        f"{address} is no Ollama server, no halext backend and no gateway",
        hint="name a node as http://HOST:11434, a backend as https://HOST/api, "
        "or a gateway as https://HOST/v1",
    )
