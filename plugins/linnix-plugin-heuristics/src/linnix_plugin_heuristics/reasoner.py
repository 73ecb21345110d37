"""The reasoner: a class that the facts support, whom they name, and the facts that say so."""

from __future__ import annotations

import math

from linnix_core import Answer, Context, ReasonRequest, hookimpl
from linnix_plugin_heuristics.evidence import Facts
from linnix_plugin_heuristics.judgement import Judgement, culprit, judge

__all__ = ["HeuristicsReasoner", "confidence"]

#: How many facts an answer cites: the sentence has room for no more.
CITED = 4

ACTIONS = 3


class HeuristicsReasoner:
    """Explain an incident by its own facts; deterministic, and declines nothing."""

    def __init__(self, config: None, context: Context) -> None:
        pass

    @hookimpl
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """The class that the facts support, and whom they name; None only without any fact."""
        if not request.facts:
            return None
        facts = Facts(request)
        judgement = judge(facts, request.incident.class_)
        normal = judgement.class_ == "normal"
        actions = [action.id for action in request.actions]
        return Answer(
            class_=judgement.class_,
            confidence=confidence(facts, judgement, rules=len(request.incident.rules)),
            process=None if normal else culprit(facts, judgement.class_),
            facts=_cited(facts, judgement),
            # The last one is to wait and see.
            actions=tuple(actions[-1:] if normal else actions[:ACTIONS]),
        )


def _cited(facts: Facts, judgement: Judgement) -> tuple[str, ...]:
    """What decided, with the measured value of the alerts and its limit."""
    ids = [fact.id for fact in facts.all[:2]] if judgement.class_ != "normal" else []
    ids += [fact.id for fact in judgement.because]
    ids += [fact.id for fact in facts.all]
    return tuple(dict.fromkeys(ids))[:CITED]


def confidence(facts: Facts, judgement: Judgement, *, rules: int) -> int:
    """Points from 50 to 95: how far over the limit, and whether everything agrees.

    By the contract of alerts, the measured value comes first and its limit second.
    """
    if not judgement.agrees:
        return 55 if judgement.because else 50
    points = 60.0
    first = facts.all[:2]
    if len(first) == 2 and first[0].unit == first[1].unit and first[1].value > 0:
        ratio = max(first[0].value / first[1].value, 1.0)
        points += min(10 * math.log2(ratio), 20)
    points += min(5 * len(judgement.because), 10)
    points += 5 if rules > 1 else 0
    return round(points)
