"""How fast a deployed model answers, measured at its OpenAI-style endpoint."""

from __future__ import annotations

import json
import statistics
import time
import urllib.error
import urllib.request
from typing import Any

import attrs

from linnix_core import Deployment, LinnixError, printable
from linnix_plugin_models.transfer import Progress

__all__ = ["Figures", "measure"]

TIMEOUT_S = 120.0
MAX_ANSWER_BYTES = 4 * 2**20


@attrs.frozen(kw_only=True)
class Figures:
    """Seconds from question to whole answer, and tokens of the answers in that time."""

    requests: int
    tokens: int
    tokens_per_s: float
    latency_s_median: float
    latency_s_worst: float


def measure(
    deployment: Deployment, requests: int, tokens: int, prompt: str, progress: Progress
) -> Figures:
    """Ask one after the other, after one that does not count. Raises `LinnixError`."""
    _ask(deployment, prompt, 1)
    taken, made = [], 0
    for number in range(requests):
        began = time.monotonic()
        made += _ask(deployment, prompt, tokens)
        taken.append(time.monotonic() - began)
        progress(number + 1, requests)
    return Figures(
        requests=requests,
        tokens=made,
        tokens_per_s=made / max(sum(taken), 1e-9),
        latency_s_median=statistics.median(taken),
        latency_s_worst=max(taken),
    )


def _ask(deployment: Deployment, prompt: str, tokens: int) -> int:
    """The number of tokens of an answer."""
    base = deployment.endpoint.rstrip("/")
    url = f"{base}/chat/completions" if base.endswith("/v1") else f"{base}/v1/chat/completions"
    if not url.startswith(("http://", "https://")):
        raise LinnixError(f"{printable(base)} is no address that can be asked")
    question = {
        "model": deployment.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    request = urllib.request.Request(  # noqa: S310 - checked above
        url,
        data=json.dumps(question).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            said: Any = json.loads(answer.read(MAX_ANSWER_BYTES))
        text = said["choices"][0]["message"]["content"]
        counted = (said.get("usage") or {}).get("completion_tokens")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise LinnixError(
            f"{deployment.name} at {printable(url)} gave no answer: {printable(str(error), 200)}",
            hint="linnix models status tells how it is",
        ) from None
    return int(counted) if isinstance(counted, int) else len(str(text).split())
