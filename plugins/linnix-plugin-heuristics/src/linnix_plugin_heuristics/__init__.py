"""The reasoner that needs no model: what the alerts say, in the form of an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from linnix_core import Answer, Context, Fact, ReasonRequest, hookimpl

__all__ = ["HeuristicsReasoner", "confidence"]

#: How many facts an answer cites: the sentence has room for no more.
CITED = 4

ACTIONS = 3


class HeuristicsReasoner:
    """Explain an incident by its own evidence; deterministic, and never declines a class."""

    def __init__(self, config: None, context: Context) -> None:
        pass

    @hookimpl
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """The class of the alerts, their subject, their evidence in order."""
        incident = request.incident
        if incident.class_ is None or not request.facts:
            return None
        subject = incident.subject.key
        process = next((p.id for p in request.processes if p.key == subject), None)
        return Answer(
            class_=incident.class_,
            confidence=confidence(request.facts, rules=len(incident.rules)),
            process=process,
            facts=tuple(fact.id for fact in request.facts[:CITED]),
            actions=tuple(action.id for action in request.actions[:ACTIONS]),
        )


def confidence(facts: Sequence[Fact], *, rules: int) -> int:
    """Points from 60 to 95: how far over the limit, and how many rules agree.

    By the contract of alerts, the measured value comes first and its limit second.

    >>> confidence([Fact("forks", 400, "forks"), Fact("threshold", 100, "forks")], rules=1)
    80
    """
    points = 60.0
    if len(facts) > 1 and facts[0].unit == facts[1].unit and facts[1].value > 0:
        ratio = max(facts[0].value / facts[1].value, 1.0)
        points += min(10 * math.log2(ratio), 20)
    points += min(5 * (rules - 1), 15)
    return round(points)
