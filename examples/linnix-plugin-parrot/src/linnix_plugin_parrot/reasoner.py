"""The reasoner: asks the server of a deployment, believes nothing of it without looking."""

from __future__ import annotations

from typing import ClassVar

import attrs

from linnix_core import Answer, Context, Deployment, PluginUnavailable, ReasonRequest, hookimpl

from .client import NoReply, ask
from .model import MAX_CONFIDENCE

MAX_ACTIONS = 3


def _not_empty(_instance: object, _attribute: object, value: str) -> None:
    if not value:
        raise ValueError("deployment must not be empty")


@attrs.frozen
class ParrotConfig:
    """The keys of ``[reasoners.parrot]``."""

    ARG: ClassVar[str] = "deployment"

    deployment: str = attrs.field(
        default="parrot",
        validator=_not_empty,
        metadata={"help": "name that the model was deployed under"},
    )


class ParrotReasoner:
    """Explain incidents by asking a deployed parrot."""

    Config = ParrotConfig

    def __init__(self, config: ParrotConfig, context: Context) -> None:
        self._name = config.deployment
        self._context = context

    @hookimpl
    def linnix_start(self) -> None:
        """Without a deployment there is nobody to ask."""
        self._deployment()

    @hookimpl
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """Pass the ids on, and decline whatever comes back and is no answer."""
        # Looked up each time: a model that is deployed anew gets another port.
        deployment = self._deployment()
        question = {
            "class": request.incident.class_,
            "processes": [process.id for process in request.processes],
            "facts": [fact.id for fact in request.facts],
            "actions": [action.id for action in request.actions],
        }
        try:
            reply = ask(deployment.endpoint, question, request.timeout_s)
        except NoReply as error:
            raise PluginUnavailable(str(error), hint=self._hint()) from error
        except ValueError as error:
            self._context.logger.warning("nonsense from %s: %s", self._name, error)
            return None
        answer = understand(reply, deployment, request)
        if answer is None:
            self._context.logger.info("%s has nothing to say that can be used", self._name)
        return answer

    def _deployment(self) -> Deployment:
        found = self._context.deployment(self._name)
        if found is None:
            raise PluginUnavailable(f"nothing is deployed as {self._name}", hint=self._hint())
        return found

    def _hint(self) -> str:
        return f"linnix parrot deploy FILE --name {self._name}"


def understand(reply: object, deployment: Deployment, request: ReasonRequest) -> Answer | None:
    """The reply as an answer, if it is one: the model's own, of known ids only."""
    if not isinstance(reply, dict) or reply.get("digest") != deployment.digest:
        return None
    said = reply.get("answer")
    if not isinstance(said, dict):
        return None
    class_ = next((known for known in request.classes if known == said.get("class")), None)
    confidence = said.get("confidence")
    process = said.get("process")
    facts = _known(said.get("facts"), [fact.id for fact in request.facts])
    actions = _known(said.get("actions"), [action.id for action in request.actions])
    if (
        class_ is None
        or type(confidence) is not int
        or not 0 <= confidence <= MAX_CONFIDENCE
        or process not in [None, *(known.id for known in request.processes)]
        or facts is None
        or actions is None
        or len(actions) > MAX_ACTIONS
    ):
        return None
    return Answer(
        class_=class_, confidence=confidence, process=process, facts=facts, actions=actions
    )


def _known(ids: object, given: list[str]) -> tuple[str, ...] | None:
    """The ids, if they are a list of what was given."""
    if not isinstance(ids, list) or any(one not in given for one in ids):
        return None
    return tuple(ids)
