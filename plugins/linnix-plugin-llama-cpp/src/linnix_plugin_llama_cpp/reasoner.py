"""The reasoner: which model it asks, when that is in memory, and what is known of it."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs.validators import ge, gt, le, optional

from linnix_core import (
    Answer,
    Context,
    Duration,
    Health,
    LinnixError,
    Message,
    Metric,
    PluginUnavailable,
    ReasonRequest,
    Size,
    ask,
    hookimpl,
    narrowed,
    printable,
)
from linnix_plugin_llama_cpp import weights
from linnix_plugin_llama_cpp.child import Child, Idle
from linnix_plugin_llama_cpp.grammar import grammar_of
from linnix_plugin_openai import NoAnswer, PromptTooLong, Refused, TooLate, Usage

__all__ = ["LlamaCppReasoner", "LlamaCppReasonerConfig"]

#: Seconds that a turn ends before its time is over.
MARGIN_S = 0.2


def _usable_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


@attrs.frozen(kw_only=True)
class LlamaCppReasonerConfig:
    """The keys of ``[reasoners.llama-cpp]``."""

    ARG: ClassVar[str] = "model"

    model: Path | None = attrs.field(
        default=None, metadata={"help": "the GGUF file; else that of linnix-plugin-demo-model"}
    )
    context: int = attrs.field(
        default=4096,
        validator=gt(0),
        metadata={"help": "tokens of the model's context; more take more memory"},
    )
    threads: int | None = attrs.field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "threads that compute; else half of the processors"},
    )
    nice: int = attrs.field(
        default=5,
        validator=[ge(0), le(19)],
        metadata={"help": "how far the model's process steps back for others, up to 19"},
    )
    memory: Size | None = attrs.field(
        default=None,
        validator=optional(gt(Size(0))),
        metadata={"help": "most address space of the model's process, its file included"},
    )
    idle_after: Duration = attrs.field(
        default=Duration(300.0),
        validator=gt(Duration(0.0)),
        metadata={"help": "how long the model stays in memory after a reply"},
    )
    timeout: Duration | None = attrs.field(
        default=None,
        validator=optional(gt(Duration(0.0))),
        metadata={"help": "longest turn; else what the agent allows"},
    )
    max_tokens: int = attrs.field(
        default=400, validator=gt(0), metadata={"help": "tokens of a reply"}
    )
    names: bool = attrs.field(
        default=False,
        metadata={
            "help": "show a model of yours the names of programs, which who starts them chooses"
        },
    )
    sentence: bool = attrs.field(
        default=False, metadata={"help": "let the model word the insight, as far as facts allow"}
    )
    arguments: bool = attrs.field(
        default=False, metadata={"help": "show the model command lines; they may give orders"}
    )


class LlamaCppReasoner:
    """Explain incidents with a model in a GGUF file, run by llama.cpp in a process of its own."""

    Config = LlamaCppReasonerConfig

    def __init__(self, config: LlamaCppReasonerConfig, context: Context) -> None:
        self._config = config
        self._usage = Usage()
        self._path = Path()
        # Who asks the model; and who starts or ends its process, which nobody waits for.
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._stopped = False
        self._trouble = ""
        self._about: Mapping[str, Any] = {}
        self._speed = 0.0

    @hookimpl
    def linnix_start(self) -> None:
        """See that there is a library and a model; loads neither."""
        self._path = weights.find(self._config.model)
        self._check()
        if importlib.util.find_spec("llama_cpp") is None:
            raise PluginUnavailable(
                "llama-cpp-python is not installed",
                hint="pip install 'linnix-plugin-llama-cpp[llama]'; it is built for ten minutes",
            )

    @hookimpl
    def linnix_ready(self) -> None:
        """See that the model can be read without the privileges that were given up."""
        self._check()

    def _check(self) -> None:
        try:
            weights.check(self._path)
        except LinnixError as error:
            raise PluginUnavailable(str(error), hint=error.hint) from error

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """End the model's process, whatever it does."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.end()
        # Whoever asks it now learns at once that it has ended.
        if self._turn.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            with self._lock:
                if self._child is not None:
                    self._child.close()
            self._turn.release()

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Requests, tokens and time so far."""
        return self._usage.metrics()

    @hookimpl
    def linnix_health(self) -> Health:
        """How the last turn went; which model it is, how fast it writes, whether it is loaded."""
        about, child = self._about, self._child
        parts = (about.get("name") or self._path.name, about.get("quantization"))
        said = printable(", ".join(str(part) for part in parts if part), 120)
        loaded = child is not None and child.runs and child.about is not None
        if self._speed:
            said += f": {self._speed:.1f} tokens/s"
        limits = [said if loaded else f"{said}; not in memory", "structured: enforced (grammar)"]
        if about.get("template") is False:
            limits.append("the model has no chat template: it gets plain text")
        return Health("degraded" if self._trouble else "ok", self._trouble, tuple(limits))

    # --- one turn ---------------------------------------------------------------------

    @hookimpl
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """Ask the model about what weighs most, and about less if it cannot hold that."""
        if not request.facts:
            return None
        seconds = min(request.timeout_s, self._config.timeout or request.timeout_s)
        # A little earlier than nobody waits any more: to say why there is no answer.
        ends = time.monotonic() + seconds - min(MARGIN_S, seconds / 20)
        if not self._turn.acquire(timeout=max(ends - time.monotonic(), 0.0)):
            raise TooLate("the model is busy with an earlier request")
        try:
            try:
                answer = self._ask(narrowed(request), ends)
            except PromptTooLong:
                answer = self._ask(narrowed(request, facts=8, processes=3), ends)
        except LinnixError as error:
            self._trouble = str(error)
            raise
        finally:
            self._turn.release()
        self._trouble = ""
        return answer

    def _ask(self, request: ReasonRequest, ends: float) -> Answer:
        return ask(
            attrs.evolve(request, timeout_s=ends - time.monotonic()),
            self._complete,
            # The demo model was trained without: to it they are numbers of letters, which may tip
            # what is nearly even.
            names=self._config.names and self._config.model is not None,
            arguments=self._config.arguments,
            sentence=self._config.sentence,
        )

    def _complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any], timeout_s: float
    ) -> str:
        if len(messages) > 2:
            self._usage.add_repair()
        ends = time.monotonic() + timeout_s
        request = {
            "messages": messages,
            "grammar": grammar_of(schema),
            "max_tokens": self._config.max_tokens,
        }
        with self._usage.counted():
            return self._text(self._exchanged(request, ends))

    def _exchanged(self, request: Mapping[str, Any], ends: float) -> Mapping[str, Any]:
        try:
            said = self._loaded().ask(request, ends)
        except Idle:  # it had just ended
            said = self._loaded().ask(request, ends)
        assert self._child is not None
        self._about = self._child.about or {}
        return said

    def _text(self, said: Mapping[str, Any]) -> str:
        self._usage.add_tokens(said.get("input"), said.get("output"))
        match said:
            case {"why": "done", "text": str(text), "output": int(output), "seconds": float(took)}:
                self._speed = output / took if took else 0.0
                return text
            case {"why": "too long", "input": tokens, "limit": limit}:
                raise PromptTooLong(
                    f"the prompt has {tokens} tokens, and the model's context {limit}, "
                    "the reply included",
                    hint="raise context, or choose a model with a larger one",
                )
            case {"why": "cut", "output": output}:
                raise Refused(
                    f"the model was not done after {output} tokens",
                    outcome="cut",
                    hint="raise max_tokens",
                )
            case {"why": "late", "input": tokens, "output": output}:
                raise TooLate(
                    f"the model was not done in time: {tokens} tokens to read, {output} written",
                    hint="a smaller model, more threads, or a longer reason_timeout_s in [agent]",
                )
        raise NoAnswer(f"the model cannot answer: {printable(str(said.get('error')), 300)}")

    # --- the process of the model -----------------------------------------------------

    def _loaded(self) -> Child:
        """The process of the model: a new one, where there is none that could be asked."""
        with self._lock:
            if self._stopped:
                raise NoAnswer("the model is not asked any more")
            if self._child is not None and not self._child.runs:
                self._child.close()
                self._child = None
            if self._child is None:
                weights.check(self._path)
                self._child = Child(self._settings())
            return self._child

    def _settings(self) -> dict[str, Any]:
        config = self._config
        return {
            "model": str(self._path),
            "context": config.context,
            "threads": config.threads or max(_usable_processors() // 2, 1),
            "nice": config.nice,
            "memory": config.memory,
            "idle_after": config.idle_after,
        }
