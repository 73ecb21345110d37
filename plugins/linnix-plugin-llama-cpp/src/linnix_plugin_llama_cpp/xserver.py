"""``python -m linnix_plugin_llama_cpp.xserver``: the server that xllamacpp carries.

It takes the arguments of llama-server that `linnix_plugin_llama_cpp.deployer` uses, and the
key from LLAMA_API_KEY.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="xserver", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--ctx-size", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args(arguments)

    # Before its threads begin: they inherit what is blocked, and only this one waits for it.
    awaited = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)

    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = asked.model
    params.model_alias = {asked.alias}
    params.hostnames = [asked.host]
    params.port = asked.port
    params.n_ctx = asked.ctx_size
    params.n_parallel = asked.parallel
    params.ui = False
    if asked.threads is not None:
        params.cpuparams.n_threads = asked.threads
        params.cpuparams_batch.n_threads = asked.threads
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    server = xllamacpp.Server(params)
    assert server.listening_address
    signal.sigwait(awaited)
    # What is native may wait for its threads for ever; there is nothing to be saved.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
