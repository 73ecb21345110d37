"""What telling costs: alerts through grouping, routing and the outbox on one core.

2,000 alerts a second, of many incidents at once, are made into incidents by the core's own
book, routed, written to the outbox on disk and told to a service on the same core that answers
at once and notes every page. Beside it, in the same run, a bare ``queue.Queue`` that hands the same
alerts to a thread. The latency is from the alert until its incident is routed and
noted; a duplicate is a second beginning, or end, of one page.

    python benchmarks/notify.py [--rate 2000] [--seconds 10] [--incidents 200]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from linnix_core import Alert, Context, Evidence, ProcessKey, ProcessView, Subject
from linnix_core.incidents import IncidentBook, IncidentView
from linnix_plugin_notify import Message, NotifyConfig, NotifyHandler, Route


class Noting:
    """A service that takes everything and counts beginnings and ends."""

    updates = True
    idempotent = True

    def __init__(self) -> None:
        self.told: Counter[tuple[str, str]] = Counter()

    def deliver(
        self, message: Message, to: str, receipt: dict[str, Any], *, again: bool
    ) -> dict[str, Any]:
        self.told[message.key, message.change] += 1
        return {}

    def close(self) -> None:
        pass


@attrs.frozen(kw_only=True)
class Config(NotifyConfig):
    pass


class Handler(NotifyHandler):
    Config = Config
    service = Noting()

    @classmethod
    def open_sink(cls, config: Any, logger: logging.Logger) -> Noting:  # noqa: ARG003
        return cls.service


ROUTES = (
    Route(name="quiet", tell=False, cgroups=("/user.slice/*",), per_hour=100_000),
    Route(name="payments", labels={"pod": "payments-*"}, per_hour=100_000),
    Route(name="urgent", min_severity="high", classes=("oom_risk",), per_hour=100_000),
    Route(name="all", min_severity="low", per_hour=100_000),
)


def alert_of(number: int, incidents: int) -> Alert:
    which = number % incidents
    exe = f"/usr/bin/tool{which}"
    return Alert(
        rule="fork_rate",
        severity="high",
        message=f"tool{which} started {number} processes in 5 s",
        class_="fork_storm",
        subject=Subject(
            ProcessKey("boot", 1000 + which, which * 10**7), exe, f"tool{which}", f"/g/{which}"
        ),
        evidence=(Evidence("forks", float(number), "forks"),),
        ts_ns=time.time_ns(),
        id=str(number),
        host="bench",
        run_id="bench",
    )


def paced(count: int, rate: int, take: Any) -> list[float]:
    """Call ``take(number)`` at that rate; seconds each took from the moment it was due."""
    latencies = []
    began = time.perf_counter()
    for number in range(count):
        due = began + number / rate
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        take(number)
        latencies.append(time.perf_counter() - due)
    return latencies


def report(name: str, latencies: list[float], cpu_s: float, **more: Any) -> None:
    cuts = statistics.quantiles(latencies, n=100)
    print(
        json.dumps(
            {
                "benchmark": f"notify/{name}",
                "alerts": len(latencies),
                "p50_ms": round(cuts[49] * 1e3, 3),
                "p95_ms": round(cuts[94] * 1e3, 3),
                "p99_ms": round(cuts[98] * 1e3, 3),
                "max_ms": round(max(latencies) * 1e3, 3),
                "cpu_us_per_alert": round(cpu_s * 1e6 / len(latencies), 1),
                **more,
            }
        )
    )


def with_notify(folder: Path, count: int, rate: int, incidents: int) -> None:
    ids = iter(range(10**9))
    book = IncidentBook(new_id=lambda: f"bench-i{next(ids)}", host="bench", run_id="bench")
    context = Context(
        component="handlers.bench",
        logger=logging.getLogger("bench"),
        host="bench",
        run_id="bench",
        processes=ProcessView(),
        incidents=IncidentView(),
        data_dir=folder / "data",
    )
    handler = Handler(Config(routes=ROUTES, max_pages=100_000), context)
    handler.linnix_start()
    handler.linnix_ready()

    def take(number: int) -> None:
        for incident in book.add(alert_of(number, incidents)):
            handler.linnix_incident(incident)

    began = time.process_time()
    latencies = paced(count, rate, take)
    cpu_s = time.process_time() - began
    for incident in book.close_quiet(time.time_ns() + 3600 * 10**9):
        handler.linnix_incident(incident)
    handler.linnix_stop(time.monotonic() + 300)
    told = Handler.service.told
    pages = {key for key, _ in told}
    report(
        "incidents", latencies, cpu_s, incidents=incidents, pages=len(pages),
        duplicates=sum(
            n - 1 for (_, change), n in told.items() if change in ("opened", "resolved")
        ),
        missing=sum(told[key, change] == 0 for key in pages for change in ("opened", "resolved")),
    )  # fmt: skip


def bare(count: int, rate: int, incidents: int) -> None:
    given: queue.Queue[Alert | None] = queue.Queue()

    def consume() -> None:
        while given.get() is not None:
            pass

    thread = threading.Thread(target=consume)
    thread.start()
    began = time.process_time()
    latencies = paced(count, rate, lambda number: given.put(alert_of(number, incidents)))
    cpu_s = time.process_time() - began
    given.put(None)
    thread.join()
    report("bare_queue", latencies, cpu_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--incidents", type=int, default=200)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    count = options.rate * options.seconds
    bare(count, options.rate, options.incidents)
    with tempfile.TemporaryDirectory() as name:
        with_notify(Path(name), count, options.rate, options.incidents)


if __name__ == "__main__":
    main()
