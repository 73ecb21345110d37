"""The facts of a request by their names, as the core and the rules give them."""

from __future__ import annotations

from linnix_core import Fact, ReasonRequest

__all__ = ["Facts"]


class Facts:
    """Looks facts up: those of the process that the alerts name, or of the machine."""

    def __init__(self, request: ReasonRequest) -> None:
        self.all = request.facts
        key = request.incident.subject.key
        #: The process that the alerts name, if they name one.
        self.subject = next((p.id for p in request.processes if p.key == key), None)
        self._processes = frozenset(p.id for p in request.processes)

    def get(self, *names: str) -> Fact | None:
        """The largest fact of any of these names that is of the subject or of nobody."""
        found = [f for f in self.all if f.name in names and f.process in (self.subject, None)]
        return max(found, key=lambda fact: fact.value, default=None)

    def value(self, *names: str) -> float:
        """Its value, 0 where there is none."""
        fact = self.get(*names)
        return 0.0 if fact is None else fact.value

    def rate(self, name: str) -> float:
        """How many of what an alert counted came in a second of its window."""
        rates = [0.0]
        counted: float | None = None
        for fact in self.all:
            if fact.name == name:
                counted = fact.value
            elif fact.name == "window" and counted is not None:
                rates.append(counted / fact.value if fact.value > 0 else 0.0)
                counted = None
        return max(rates)

    def largest(self, *names: str) -> str | None:
        """The process whose facts of these names add up to the most."""
        sums: dict[str, float] = {}
        for fact in self.all:
            if fact.name in names and fact.process in self._processes:
                sums[str(fact.process)] = sums.get(str(fact.process), 0.0) + fact.value
        return max(sums, key=lambda process: sums[process], default=None)
