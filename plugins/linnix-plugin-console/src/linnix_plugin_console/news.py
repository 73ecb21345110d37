"""The alerts and incidents that the live view shows: the latest ones, never more."""

from __future__ import annotations

import threading
from collections import deque

import attrs

from linnix_core import Alert, Incident, Insight

__all__ = ["News", "Story"]

_MAX_ALERTS = 50
_MAX_INCIDENTS = 50


@attrs.frozen
class Story:
    """An incident as it was last published, and why it happened once that is known."""

    incident: Incident
    insight: Insight | None = None

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.incident.change == "closed"


class News:
    """Taken in by the handler's thread, read by the one that draws."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alerts: deque[Alert] = deque(maxlen=_MAX_ALERTS)
        self._stories: dict[str, Story] = {}

    def alert(self, alert: Alert) -> None:
        """Remember an alert."""
        with self._lock:
            self._alerts.append(alert)

    def incident(self, incident: Incident) -> None:
        """Remember an incident as it is now."""
        with self._lock:
            story = self._stories.get(incident.id, Story(incident))
            self._stories[incident.id] = attrs.evolve(story, incident=incident)
            if len(self._stories) > _MAX_INCIDENTS:
                over = (key for key, story in self._stories.items() if story.closed)
                del self._stories[next(over, next(iter(self._stories)))]

    def insight(self, insight: Insight) -> None:
        """Remember why an incident happened."""
        with self._lock:
            if (story := self._stories.get(insight.incident)) is not None:
                self._stories[insight.incident] = attrs.evolve(story, insight=insight)

    def alerts(self) -> list[Alert]:
        """The latest alerts, the newest first."""
        with self._lock:
            return list(reversed(self._alerts))

    def stories(self) -> list[Story]:
        """The incidents, open ones first and the newest first among them."""
        with self._lock:
            stories = list(self._stories.values())
        return sorted(stories, key=lambda story: (story.closed, -story.incident.opened_ns))
