"""What reasoners with a model behind a server have in common: keys, turns, health, the canary."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import attrs
from attrs.validators import ge, gt, optional

from linnix_core import (
    Answer,
    Context,
    Deployment,
    Duration,
    Health,
    LinnixError,
    Message,
    Metric,
    PluginUnavailable,
    ReasonRequest,
    Secret,
    ask,
    hookimpl,
    narrowed,
    printable,
)
from linnix_plugin_openai.chat import PromptTooLong, Structured
from linnix_plugin_openai.exchange import Exchange
from linnix_plugin_openai.usage import Usage

__all__ = ["Model", "ModelConfig", "ModelReasoner", "deployed"]

#: Seconds for finding out what a server enforces, and from one try to the next.
PROBE_S = 20.0
PROBE_PAUSE_S = 60.0

#: Seconds that a turn ends before its time is over.
MARGIN_S = 0.2


class Model(Protocol):
    """A model behind a server, as `ModelReasoner` needs it. Calls raise `LinnixError`."""

    @property
    def structured(self) -> Structured | None:
        """What `probe` found; None before it did, and when it turned out to be wrong."""

    @property
    def rests(self) -> bool:
        """Whether the server asked to be left alone for now."""

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any], timeout_s: float
    ) -> str:
        """The text of one reply."""

    def probe(self, timeout_s: float) -> Structured:
        """Find out whether replies are made to fit a schema."""

    def close(self) -> None:
        """End what is under way."""


@attrs.frozen(kw_only=True)
class ModelConfig:
    """The keys that such reasoners have in common."""

    api_key: Secret | None = attrs.field(
        default=None, metadata={"help": "key for a server that wants one"}
    )
    timeout: Duration | None = attrs.field(
        default=None,
        validator=optional(gt(Duration(0.0))),
        metadata={"help": "longest turn; else what the agent allows"},
    )
    max_tokens: int = attrs.field(
        default=400,
        validator=gt(0),
        metadata={"help": "tokens of a reply; models that think need more"},
    )
    temperature: float = attrs.field(
        default=0.0, validator=ge(0), metadata={"help": "how freely words are chosen"}
    )
    names: bool = attrs.field(
        default=False,
        metadata={
            "help": "show the model the names of programs, which whoever starts them chooses"
        },
    )
    sentence: bool = attrs.field(
        default=False, metadata={"help": "let the model word the insight, as far as facts allow"}
    )
    arguments: bool = attrs.field(
        default=False, metadata={"help": "show the model command lines; they may hold secrets"}
    )
    plain_http: bool = attrs.field(
        default=False, metadata={"help": "allow http to other machines, key and all in clear text"}
    )
    proxy: Secret | None = attrs.field(
        default=None,
        metadata={"help": 'address of a proxy; else HTTPS_PROXY and the like; "" is none'},
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata={"help": "PEM file of authorities to trust in place of the public ones"},
    )

    def exchange(self, url: str, fallback_key: str = "") -> Exchange:
        """What asks the server at ``url``, with these keys. Raises `PluginUnavailable`."""
        key = fallback_key if self.api_key is None else self.api_key.reveal()
        proxy = None if self.proxy is None else self.proxy.reveal()
        try:
            return Exchange(url, api_key=key.strip(), proxy=proxy, ca_file=self.ca_file)
        except ValueError as error:
            raise PluginUnavailable(
                str(error), hint="correct it in the table of this reasoner"
            ) from None


Target = TypeVar("Target", bound=Hashable)


class ModelReasoner(Generic[Target]):
    """A reasoner whose model is at ``where()`` and is connected by ``make()``.

    Both are called at every turn and before every probe, the second only where the first has
    changed, and may raise `LinnixError`. With ``movable``, where the model is may become
    known after the start.
    """

    movable = False

    def __init__(self, config: ModelConfig, context: Context, usage: Usage) -> None:
        self._options = config
        self._context = context
        self._usage = usage
        # Connecting may take a while, and nobody who asks for the health waits for it.
        self._connecting = threading.Lock()
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._model: Model | None = None
        self._trouble = ""
        self._probing: threading.Thread | None = None
        self._probe_again = 0.0
        self._stopped = False

    def where(self) -> Target:
        """Which model of which server it is now."""
        raise NotImplementedError

    def make(self, target: Target) -> Model:
        """Connect it; asks nobody yet."""
        raise NotImplementedError

    @hookimpl
    def linnix_start(self) -> None:
        """See that what is configured can be used; asks nobody yet."""
        if not self.movable:
            self.connected()

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Requests, tokens, time and cost so far."""
        return self._usage.metrics()

    def connected(self) -> Model:
        """The model as it is known now."""
        target = self.where()
        with self._connecting:
            if self._model is None or self._target != target:
                before = self._model
                self._model, self._target = self.make(target), target
                self._probe_again = 0.0
                if before is not None:
                    before.close()
            if self._stopped:
                self._model.close()
            return self._model

    @hookimpl
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """Ask the model; None without a question while the server wants to be left alone."""
        if not request.facts:
            return None
        seconds = min(request.timeout_s, self._options.timeout or request.timeout_s)
        # A little earlier than nobody waits any more: to say why there is no answer.
        ends = time.monotonic() + seconds - min(MARGIN_S, seconds / 20)
        try:
            model = self.connected()
            if model.rests:
                return None
            try:
                answer = self._ask(model, request, ends)
            except PromptTooLong:
                answer = self._ask(model, narrowed(request), ends)
        except LinnixError as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        return answer

    def _ask(self, model: Model, request: ReasonRequest, ends: float) -> Answer:
        def complete(
            messages: Sequence[Message], schema: Mapping[str, Any], timeout_s: float
        ) -> str:
            if len(messages) > 2:
                self._usage.add_repair()
            return model.complete(messages, schema, timeout_s)

        return ask(
            attrs.evolve(request, timeout_s=ends - time.monotonic()),
            complete,
            names=self._options.names,
            arguments=self._options.arguments,
            sentence=self._options.sentence,
        )

    @hookimpl
    def linnix_health(self) -> Health:
        """Whether the server answered last, and whether it makes replies fit.

        The first call has the canary sent, later ones as long as that is not known: not at
        the start, since a thread that begins there keeps what privileges a run gives up.
        """
        self._begin_probe()
        model, trouble = self._model, self._trouble
        known = model.structured if model is not None else None
        said = str(known) if known else "structured: not known yet"
        return Health("degraded" if trouble else "ok", trouble, (said,))

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """End what is under way."""
        with self._lock:
            self._stopped = True
            thread = self._probing
        if self._model is not None:
            self._model.close()
        if thread is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _begin_probe(self) -> None:
        with self._lock:
            model = self._model
            busy = self._probing is not None and self._probing.is_alive()
            known = model is not None and model.structured is not None and not self._trouble
            if self._stopped or busy or known or time.monotonic() < self._probe_again:
                return
            self._probe_again = time.monotonic() + PROBE_PAUSE_S
            self._probing = threading.Thread(target=self._probe, name="linnix-probe", daemon=True)
            self._probing.start()

    def _probe(self) -> None:
        try:
            model = self.connected()
            if model.rests:
                return
            self._context.logger.debug("%s", model.probe(PROBE_S))
        except LinnixError as error:
            self._trouble = str(error)
        else:
            self._trouble = ""


def deployed(context: Context, name: str) -> Deployment:
    """A deployment by its name, as it is now. Raises `LinnixError`."""
    deployment = context.deployment(name)
    if deployment is None:
        raise LinnixError(
            f"nothing is deployed as {printable(name, 80)!r}",
            hint="linnix models deploy serves a model",
        )
    return deployment
