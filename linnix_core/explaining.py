"""Who is asked to explain an incident, in which order, how often and for how long.

The reasoners are asked in the order of the configuration, one at a time, until an answer
is grounded. One that fails again and again is left alone for a while, one that was asked
too often within an hour waits, and what was asked before is not asked again. None of this
holds for `LAST_REASONER`, which costs nothing: so every incident is explained in time.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import Any

import attrs

from linnix_core.catalog import canonical
from linnix_core.config import AgentSettings
from linnix_core.context import Clock
from linnix_core.errors import LinnixError
from linnix_core.grounding import NotGrounded, ground, sentence_is_grounded
from linnix_core.plan import LAST_REASONER
from linnix_core.plugins import Component, PluginHost
from linnix_core.processes import ProcessView
from linnix_core.reasoning import build_request
from linnix_core.records import Answer, Fact, Incident, Insight, Metric, ReasonRequest
from linnix_core.surroundings import Surroundings

__all__ = ["Explainer"]

_LOG = logging.getLogger("linnix.agent")

#: Seconds that one handler may gather evidence, and which part of the time all of them may.
EVIDENCE_BUDGET_S = 1.0
EVIDENCE_SHARE = 0.25

#: Which part of the time, and how many seconds at most, is kept for the last reasoner.
KEPT_SHARE = 0.1
KEPT_S = 1.0

#: Requests that are kept, for whoever wants to see what was asked.
MAX_REQUESTS = 256

HOUR_S = 3600.0


@attrs.define
class _Record:
    """What one reasoner has been through."""

    asked: deque[float] = attrs.field(factory=deque)
    failures: int = 0
    paused_until: float = 0.0
    outcomes: Counter[str] = attrs.field(factory=Counter)


class Explainer:
    """Has incidents explained by the reasoners of a host. One thread calls `explain`."""

    def __init__(
        self,
        host: PluginHost,
        settings: AgentSettings,
        *,
        processes: ProcessView,
        surroundings: Surroundings,
        clock: Clock = time,
    ) -> None:
        self._host = host
        self._settings = settings
        self._processes = processes
        self._surroundings = surroundings
        # For pauses and budgets; deadlines are of the real time, which calls take.
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._answers: OrderedDict[Hashable, tuple[Answer, Hashable]] = OrderedDict()
        self._requests: OrderedDict[str, ReasonRequest] = OrderedDict()
        self._lock = threading.Lock()
        self.discarded_answers = 0
        self.discarded_sentences = 0

    def explain(
        self, incident: Incident, deadline: float, *, again: bool = False
    ) -> Insight | None:
        """The first grounded answer as an insight, by a moment of ``time.monotonic()``.

        ``again`` asks also what was asked before. None where every reasoner declined.
        """
        request = self._request(incident, deadline)
        reasoners = self._host.implementing("linnix_reason")
        kept = min(KEPT_S, KEPT_SHARE * self._settings.reason_timeout_s)
        for component in reasoners:
            left = deadline - time.monotonic()
            # However late it is, the last one is asked, and it has what was kept for it.
            left = max(left, kept) if component is reasoners[-1] else left - kept
            if left < kept:
                self._records.setdefault(component.name, _Record()).outcomes["late"] += 1
                continue
            insight = self._ask(
                component, attrs.evolve(request, timeout_s=round(left, 2)), again=again
            )
            if insight is not None:
                return insight
        if reasoners:
            _LOG.warning("incident %s stays unexplained: every reasoner declined", incident.id)
        return None

    def request(self, incident_id: str) -> ReasonRequest | None:
        """What was last asked about an incident, if that was not long ago. From any thread."""
        with self._lock:
            return self._requests.get(incident_id)

    def request_about(self, incident: Incident) -> ReasonRequest:
        """What would be asked about an incident now, without evidence of handlers."""
        return build_request(
            incident,
            self._processes,
            surroundings=self._surroundings,
            timeout_s=self._settings.reason_timeout_s,
        )

    def metrics(self) -> Iterable[Metric]:
        """How often each reasoner did what, and what was not believed. From any thread."""
        yield Metric(
            "linnix_discarded_answers",
            self.discarded_answers,
            "{answer}",
            "counter",
            help="Answers of reasoners that were not grounded",
        )
        yield Metric(
            "linnix_discarded_sentences",
            self.discarded_sentences,
            "{sentence}",
            "counter",
            help="Sentences of reasoners that said more than the facts they cited",
        )
        for name, record in tuple(self._records.items()):
            for outcome, count in tuple(record.outcomes.items()):
                yield Metric(
                    "linnix_reasoner_turns",
                    count,
                    "{turn}",
                    "counter",
                    {"reasoner": name, "outcome": outcome},
                    help="Turns of a reasoner, by what came of them",
                )

    # --- the request ------------------------------------------------------------------

    def _request(self, incident: Incident, deadline: float) -> ReasonRequest:
        left = EVIDENCE_SHARE * max(deadline - time.monotonic(), 0.0)
        asked = self._host.implementing("linnix_evidence")
        budget = min(EVIDENCE_BUDGET_S, left / max(len(asked), 1))
        answers = self._host.each("linnix_evidence", budget, incident=incident)
        request = build_request(
            incident,
            self._processes,
            surroundings=self._surroundings,
            extra=(
                fact
                for _, facts in answers
                if isinstance(facts, Iterable)
                for fact in facts
                if isinstance(fact, Fact)
            ),
            timeout_s=self._settings.reason_timeout_s,
        )
        with self._lock:
            self._requests.pop(incident.id, None)
            self._requests[incident.id] = request
            if len(self._requests) > MAX_REQUESTS:
                self._requests.popitem(last=False)
        return request

    # --- one reasoner -----------------------------------------------------------------

    def _ask(self, component: Component, request: ReasonRequest, *, again: bool) -> Insight | None:
        record = self._records.setdefault(component.name, _Record())
        key = _content(component, request)
        costs = _costs(component)
        if costs:
            known = None if again else self._known(key, request)
            if known is not None:
                record.outcomes["cached"] += 1
                return ground(request, known, component.name)
            if not self._may_ask(component, record):
                return None
            record.asked.append(self._clock.monotonic())
        try:
            answer = component.call_within(request.timeout_s, "linnix_reason", request=request)
            insight = None if answer is None else ground(request, answer, component.name)
        except NotGrounded as error:
            self.discarded_answers += 1
            self._failed(component, record, "discarded", error)
            return None
        except LinnixError as error:
            component.failures += 1
            self._failed(component, record, "failed", error)
            return None
        record.failures = 0
        component.set_state("running")
        record.outcomes["declined" if insight is None else "answered"] += 1
        if insight is None:
            return None
        if answer.sentence is not None and not sentence_is_grounded(request, answer):
            self.discarded_sentences += 1
        if costs:
            self._remember(key, request, answer)
        return insight

    def _may_ask(self, component: Component, record: _Record) -> bool:
        now = self._clock.monotonic()
        while record.asked and now - record.asked[0] >= HOUR_S:
            record.asked.popleft()
        if now < record.paused_until:
            record.outcomes["paused"] += 1
            return False
        if len(record.asked) >= self._settings.reasons_per_hour:
            record.outcomes["over_budget"] += 1
            minutes = math.ceil((record.asked[0] + HOUR_S - now) / 60)
            component.set_state(
                "degraded",
                "budget",
                f"was asked {len(record.asked)} times within an hour; again in {minutes} min",
                "raise reasons_per_hour in [agent]",
            )
            return False
        return True

    def _failed(
        self, component: Component, record: _Record, outcome: str, error: LinnixError
    ) -> None:
        said = f"answer discarded: {error}" if outcome == "discarded" else str(error)
        record.outcomes[outcome] += 1
        record.failures += 1
        cause = error.__cause__ if isinstance(error.__cause__, LinnixError) else error
        _LOG.warning("%s declined: %s", component, said)
        alone = _costs(component) and record.failures >= self._settings.reason_failures
        if alone:
            # One more try after the pause: its failure makes the next pause.
            record.paused_until = self._clock.monotonic() + self._settings.reason_pause_s
            said += f"; asked again in {self._settings.reason_pause_s:g} s"
        if alone or outcome == "failed":
            component.set_state("degraded", "declined", said, cause.hint)
        else:
            component.set_state("running")

    # --- what was asked before --------------------------------------------------------

    def _known(self, key: Hashable, request: ReasonRequest) -> Answer | None:
        """The answer to what was asked before, if its ids mean the same in this request."""
        answer, meaning = self._answers.get(key, (None, None))
        if answer is None or _meaning(request, answer) != meaning:
            return None
        self._answers.move_to_end(key)
        return answer

    def _remember(self, key: Hashable, request: ReasonRequest, answer: Answer) -> None:
        self._answers.pop(key, None)
        self._answers[key] = (answer, _meaning(request, answer))
        while len(self._answers) > self._settings.reason_cache:
            self._answers.popitem(last=False)


def _costs(component: Component) -> bool:
    return canonical(component.plugin.rpartition(":")[2]) != LAST_REASONER


def _content(component: Component, request: ReasonRequest) -> Hashable:
    """What makes two incidents alike: what it is, who did it, how bad it is, how much."""
    incident = request.incident
    return (
        component.name,
        incident.fingerprint,
        incident.severity,
        tuple((e.name, e.unit, _roughly(e.value)) for e in incident.evidence),
    )


def _meaning(request: ReasonRequest, answer: Answer) -> Hashable:
    """What the ids of an answer stand for, without pids and amounts."""
    pid = "" if request.incident.subject.key is None else str(request.incident.subject.key.pid)
    facts = {fact.id: (fact.name, fact.unit, fact.process) for fact in request.facts}
    processes = {process.id: (process.comm, process.exe) for process in request.processes}
    actions = {
        action.id: action.text.replace(pid, "") if pid else action.text
        for action in request.actions
    }
    return (
        tuple(facts.get(item) for item in answer.facts),
        processes.get(answer.process or ""),
        tuple(actions.get(item) for item in answer.actions),
    )


def _roughly(value: Any) -> Any:
    """A number with one significant digit."""
    if not isinstance(value, int | float) or not abs(value) < 2**63:
        return None  # which makes no fact either
    return float(f"{value:.0e}")
