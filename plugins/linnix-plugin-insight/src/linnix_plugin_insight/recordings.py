"""Bundles of what a run recorded: each incident as it was when it was explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from linnix_core import (
    Alert,
    Bundle,
    Feedback,
    Incident,
    Insight,
    LinnixError,
    bundle_of,
    decode,
)
from linnix_plugin_insight.files import lines_of, require_file

__all__ = ["Recording"]

#: Incidents of one recording; each takes a pass over the records up to its time.
MAX_INCIDENTS = 256

#: Alerts of one recording, the first ones: what a bundle says beside its request.
MAX_ALERTS = 16_384


@attrs.frozen
class Recording:
    """JSON lines of a run with its incidents, read once for those and then once for each."""

    path: Path

    def bundles(self) -> Iterator[Bundle]:
        """One for each incident that was opened, in their order.

        Raises `LinnixError` for a file that cannot be read twice, or has no incident in it.
        """
        require_file(self.path)
        incidents: dict[str, Incident] = {}
        notices: list[Alert | Insight] = []
        records = 0
        for record in self._records():
            records += 1
            kind = type(record)
            if kind is Incident:
                if record.change in ("opened", "worse"):
                    if record.id not in incidents and len(incidents) == MAX_INCIDENTS:
                        raise LinnixError(
                            f"{self.path}: more than {MAX_INCIDENTS} incidents in one recording",
                            hint="cut it into several",
                        )
                    incidents[record.id] = record
            elif (kind is Alert or kind is Insight) and len(notices) < MAX_ALERTS:
                notices.append(record)
        if not incidents:
            raise LinnixError(
                f"{self.path}: no incident among {records} records",
                hint="play it to the rules first: linnix run --collector "
                f"replay:{self.path} --handler rules --handler jsonl:incidents.jsonl",
            )
        for incident in incidents.values():
            yield bundle_of(incident, self._until(incident.updated_ns, notices))

    def _until(self, ts_ns: int, notices: list[Any]) -> Iterator[Any]:
        for record in self._records():
            if type(record) in (Alert, Feedback, Incident, Insight):
                continue
            if record.ts_ns > ts_ns + _DISORDER_NS:
                break
            yield record
        yield from notices

    def _records(self) -> Iterator[Any]:
        """Every record; lines that hold none are passed over, as a run may have been killed."""
        for line in lines_of(self.path):
            try:
                yield decode(line.data or b"")
            except ValueError:
                continue


#: How much earlier a later line may be: collectors hand over at different moments.
_DISORDER_NS = 30 * 10**9
