"""The process that holds a model: JSON lines come in, JSON lines go out.

    python -m linnix_plugin_llama_cpp.worker '{"model": "/path/model.gguf", …}'

It says whether the model is loaded, and then answers one request after the other. It ends with
its standard input, or when it had nothing to do for long enough.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["main"]

#: How llama.cpp marks what went wrong (``GGML_LOG_LEVEL_ERROR``), and how much of it is kept:
#: what comes first says most.
LOG_ERROR = 4
MAX_COMPLAINTS = 2


def main() -> NoReturn:
    """Run until there is nothing more to do. Does not return: native threads may still run."""
    settings = json.loads(sys.argv[1])
    replies = _claim_output()
    _be_modest(settings)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    for reply in _replies(settings, requests):
        replies.write(f"{json.dumps(reply)}\n")
        replies.flush()
    os._exit(0)


def _claim_output() -> Any:
    """Standard output for replies alone: what libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _be_modest(settings: Mapping[str, Any]) -> None:
    """Leave the machine to others: it may be in trouble, which is why this process is asked."""
    os.nice(settings["nice"])
    with contextlib.suppress(OSError):  # Linux: where memory runs out, this is what to end first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings["memory"] is not None:
        resource.setrlimit(resource.RLIMIT_AS, (settings["memory"],) * 2)


def _read(requests: queue.SimpleQueue[dict[str, Any]]) -> NoReturn:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    # Whoever asks is gone, maybe killed; what the other thread computes is for nobody.
    os._exit(0)


def _replies(
    settings: Mapping[str, Any], requests: queue.SimpleQueue[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    complaints: list[str] = []
    try:
        _keep = _listen(complaints)
        from linnix_plugin_llama_cpp.model import Model

        model = Model(settings["model"], context=settings["context"], threads=settings["threads"])
    except Exception as error:  # noqa: BLE001 - what native code says has no type
        yield {"failed": _told(error, complaints)}
        return
    yield {"loaded": model.about()}
    while True:
        try:
            request = requests.get(timeout=settings["idle_after"])
        except queue.Empty:
            return
        complaints.clear()
        ends = time.monotonic() + request["seconds"]
        try:
            yield model.reply(request["messages"], request["grammar"], request["max_tokens"], ends)
        except Exception as error:  # noqa: BLE001
            yield {"why": "failed", "error": _told(error, complaints)}


def _listen(complaints: list[str]) -> Any:
    """Collect what llama.cpp says went wrong, where alone it says why, while this is kept."""
    llama_cpp: Any = importlib.import_module("llama_cpp")

    def note(level: int, text: bytes, _data: Any) -> None:
        if level == LOG_ERROR and len(complaints) < MAX_COMPLAINTS:
            complaints.append(text.decode(errors="replace"))

    callback = llama_cpp.llama_log_callback(note)
    llama_cpp.llama_log_set(callback, None)
    return callback


def _told(error: Exception, complaints: list[str]) -> str:
    return "; ".join(map(str.strip, complaints)) or f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
