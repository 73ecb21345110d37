"""llama.cpp's library in a process of its own: ``python -m linnix_plugin_gguf.native``.

A question comes as JSON on standard input, the answer goes as JSON to standard output, and
what llama.cpp says to standard error. What is native may crash; so it does not do it here:

    {"do": "quantize", "source": …, "target": …, "type": 15, "threads": 2}
    {"do": "logits", "model": …, "text": …, "count": 16, "into": "….npy"}
    {"do": "run", "words": ["/opt/llama.cpp/llama-quantize", …]}
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

#: prctl(2): the signal that ends this process when the one that began it ends.
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Answer one question; 1 where llama.cpp says no."""
    _end_with_parent()
    request = json.load(sys.stdin)
    if request["do"] == "run":
        os.dup2(2, 1)
        os.execv(request["words"][0], request["words"])  # noqa: S606 - no shell is what is meant
    # Whatever a library prints must not stand in the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    said = answer_to(request)
    if said is None:
        return 1
    with os.fdopen(answer, "w") as file:
        json.dump(said, file)
    return 0


def answer_to(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """What llama.cpp's library makes of a question; None where it says no."""
    return {"quantize": _quantize, "logits": _logits}[request["do"]](request)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _quantize(request: Mapping[str, Any]) -> dict[str, Any] | None:
    import llama_cpp

    # Its logger would drop the reasons below the level of a warning.
    llama_cpp.llama_log_set(_LOG, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = request["type"]
    params.nthread = request["threads"]
    failed = llama_cpp.llama_model_quantize(
        os.fsencode(request["source"]), os.fsencode(request["target"]), ctypes.byref(params)
    )
    return None if failed else {}


def _logits(request: Mapping[str, Any]) -> dict[str, Any]:
    import llama_cpp
    import numpy as np

    llama_cpp.llama_log_set(_LOG, ctypes.c_void_p(0))
    model = llama_cpp.Llama(
        request["model"], n_ctx=4 * request["count"], n_gpu_layers=0, logits_all=True, verbose=True
    )
    tokens = model.tokenize(request["text"].encode(), add_bos=True, special=True)
    count = min(request["count"], len(tokens))
    model.eval(tokens[:count])
    np.save(request["into"], np.array(model.scores[:count]))
    return {"tokens": tokens}


def _say(level: int, text: bytes, data: object) -> None:
    sys.stderr.buffer.write(text)
    sys.stderr.buffer.flush()


#: Kept for as long as the library may call it.
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_say)


if __name__ == "__main__":
    sys.exit(main())
