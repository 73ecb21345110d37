"""What a model cost: requests, tokens, seconds and money."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from linnix_core import Metric

__all__ = ["Usage"]

#: Tokens that one answer may claim; a server may say anything.
MAX_CLAIMED = 10_000_000


class Usage:
    """Counters of one reasoner; the same names whatever server it asks. Safe to share.

    Prices are those of a million tokens, in any currency.
    """

    def __init__(self, *, price_input: float = 0.0, price_output: float = 0.0) -> None:
        self._prices = {"input": price_input, "output": price_output}
        self._lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.tokens = {"input": 0, "output": 0}
        self.repairs = 0
        self.seconds = 0.0

    def add_request(self, outcome: str, seconds: float) -> None:
        """Count a request by what came of it: ``answered refused cut limited failed late``."""
        with self._lock:
            self.requests[outcome] += 1
            self.seconds += seconds

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what happens within as one request; an exception may name its ``outcome``."""
        began, outcome = time.monotonic(), "answered"
        try:
            yield
        except BaseException as error:
            outcome = getattr(error, "outcome", "failed")
            raise
        finally:
            self.add_request(outcome, time.monotonic() - began)

    def add_tokens(self, said_input: Any, said_output: Any) -> None:
        """Count tokens as the server says; what is no number of tokens counts for nothing."""
        with self._lock:
            for direction, said in (("input", said_input), ("output", said_output)):
                if type(said) is int and 0 <= said <= MAX_CLAIMED:
                    self.tokens[direction] += said

    def add_repair(self) -> None:
        """Count a reply that was no answer and was sent back."""
        with self._lock:
            self.repairs += 1

    @property
    def cost(self) -> float:
        """What the tokens cost."""
        return sum(self._prices[direction] * n for direction, n in self.tokens.items()) / 1e6

    def metrics(self) -> Iterable[Metric]:
        """The counters as metrics."""
        with self._lock:
            requests, tokens = dict(self.requests), dict(self.tokens)
        for outcome, count in requests.items():
            yield Metric(
                "linnix_llm_requests",
                count,
                "{request}",
                "counter",
                {"outcome": outcome},
                help="Requests to a model, by what came of them",
            )
        for direction, count in tokens.items():
            yield Metric(
                "linnix_llm_tokens",
                count,
                "{token}",
                "counter",
                {"direction": direction},
                help="Tokens that a model read and wrote, as its server says",
            )
        yield Metric(
            "linnix_llm_repairs",
            self.repairs,
            "{reply}",
            "counter",
            help="Replies that were no answer and were sent back once",
        )
        yield Metric(
            "linnix_llm_time",
            self.seconds,
            "s",
            "counter",
            help="Time spent waiting for a model",
        )
        if any(self._prices.values()):
            yield Metric(
                "linnix_llm_cost",
                self.cost,
                "{currency}",
                "counter",
                help="What the tokens cost, at the configured prices",
            )
