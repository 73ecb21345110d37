"""The thread that tells: page by page, patient with a service that is down or says not now."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import attrs

from linnix_core import Clock, Feedback, Incident, Insight
from linnix_plugin_notify.message import Message
from linnix_plugin_notify.outbox import NotSaved, Outbox
from linnix_plugin_notify.pages import Page, PageBook
from linnix_plugin_notify.sinks import NotNow, Refused, Sink

__all__ = ["Delivery"]

#: Seconds of the first pause after a failure; each further one doubles it, up to the last.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0

#: What a service may ask for at most, in seconds.
MAX_RETRY_AFTER_S = 3600.0

#: Seconds between two commits while incidents come fast, and between two tries to write.
SAVE_EVERY_S = 0.05
SAVE_AGAIN_S = 5.0

#: Nanoseconds between two looks for pages that are over for long.
_FORGET_EVERY_NS = 60 * 10**9

_SECOND_NS = 10**9


@attrs.define
class _Trouble:
    """What is wrong with one target: how often in a row, and until when it is left alone."""

    failures: int
    until_ns: int
    said: str


class Delivery:
    """Owns the pages of one component: takes what happens, keeps it on disk, delivers it.

    `take` may be called from any thread and waits for the disk at most, never for a service.
    """

    def __init__(
        self,
        book: PageBook,
        outbox: Outbox,
        sink: Sink,
        *,
        clock: Clock,
        logger: logging.Logger,
        name: str,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311
    ) -> None:
        self._book = book
        self._outbox = outbox
        self._sink = sink
        self._clock = clock
        self._logger = logger
        self._jitter = jitter
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._trouble: dict[str, _Trouble] = {}
        self._saved_at = -SAVE_EVERY_S
        self._save_due = 0.0
        self._forgot_ns = 0
        self._not_saved: str | None = None
        self._stop_at: float | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"linnix-{name}-delivery", daemon=True
        )
        #: Messages by what became of them.
        self.counts: Counter[str] = Counter()
        #: What a person who reads the logs was told last, so that it is told once.
        self._told_trouble: dict[str, str] = {}
        book.load(outbox.load(), clock.time_ns())

    # --- from outside -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def take(self, notice: Incident | Insight | Feedback) -> None:
        """Note what happened, and write it down: at once, or soon where much happens."""
        with self._changed:
            if self._stop_at is not None:
                return
            taken = self._book.take(notice, self._clock.time_ns())
            if taken is None and not self._book.unsaved:
                return
            self._changed.notify_all()
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    def flush(self) -> None:
        """Write down what is not yet."""
        self._save()

    def stop(self, deadline: float) -> None:
        """Deliver what is due until the monotonic ``deadline``, write the rest down, close."""
        with self._changed:
            if self._stop_at is not None:
                return
            self._stop_at = deadline
            self._changed.notify_all()
        if self._thread.ident is not None:
            # A service that hangs must not take the time that writing needs.
            self._thread.join(max(deadline - time.monotonic() - 0.2, 0.0))
        self._sink.close()
        if self._thread.ident is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        self._save()
        if not self._thread.is_alive():
            # Else the thread still needs it; the process is about to end.
            self._outbox.close()

    def problems(self, patience_s: float) -> list[str]:
        """What is wrong now, in words."""
        with self._changed:
            found = [trouble.said for trouble in self._trouble.values()]
            if self._not_saved is not None:
                found.append(self._not_saved)
            since = self._busy_since
            if since is not None and time.monotonic() - since > patience_s:
                found.append(f"a delivery has not ended for {time.monotonic() - since:.0f} s")
            return list(dict.fromkeys(found))

    def waiting(self) -> tuple[int, int]:
        """How many pages wait to be told, and how many of them for the limit of their route."""
        with self._changed:
            return self._book.waiting, self._book.held(self._clock.time_ns())

    def lost(self) -> dict[str, int]:
        """Pages that nobody was told of, by reason."""
        with self._changed:
            return dict(self._book.lost)

    # --- the thread -------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                page = self._wait()
                if page is None:
                    return
                message, again = self._book.begin(page)
            # On disk before it is sent: whoever finds it there knows that it may have arrived.
            self._save()
            self._deliver(page, message, again=again)
            self._save()

    def _wait(self) -> Page | None:
        """The next page to tell, or None when it is time to end. Holds the condition."""
        while True:
            now_ns = self._clock.time_ns()
            if now_ns - self._forgot_ns >= _FORGET_EVERY_NS:
                self._forgot_ns = now_ns
                self._book.forget(now_ns)
            paused = {to: trouble.until_ns for to, trouble in self._trouble.items()}
            page, due_ns = self._book.next_due(now_ns, paused)
            stopping = self._stop_at is not None
            if stopping and (page is None or time.monotonic() >= (self._stop_at or 0.0)):
                return None
            if page is not None:
                return page
            timeout = None if due_ns is None else max((due_ns - now_ns) / _SECOND_NS, 0.0)
            if self._book.unsaved:
                soon = max(self._save_due - time.monotonic(), SAVE_EVERY_S)
                timeout = soon if timeout is None else min(timeout, soon)
            # Clocks that are set must not make anybody wait for long.
            self._changed.wait(min(60.0 if timeout is None else timeout, 60.0))
            if self._book.unsaved and time.monotonic() >= self._save_due:
                self._changed.release()
                try:
                    self._save()
                finally:
                    self._changed.acquire()

    def _deliver(self, page: Page, message: Message, *, again: bool) -> None:
        if again:
            self.counts["again"] += 1
            self.counts["possible_duplicates"] += not self._sink.idempotent
        self._busy_since = time.monotonic()
        try:
            receipt = self._sink.deliver(message, page.to, dict(page.receipt), again=again)
        except NotNow as error:
            self._failed(page, message, error)
        except Refused as error:
            # Telling it again would fail again: the rest of its story may pass.
            self._logger.error("%s was refused: %s", message.title, error)  # noqa: TRY400
            self.counts["refused"] += 1
            self._told(page, message, page.receipt)
        except Exception as error:  # one sink's mistake must not end delivery
            self._logger.error(  # noqa: TRY400
                "delivery failed: %r", error, exc_info=_debugging(self._logger)
            )
            self._failed(page, message, NotNow(f"delivery failed: {type(error).__name__}"))
        else:
            self.counts[f"delivered_{message.change}"] += 1
            if self._trouble.get(page.to) is not None:
                self._logger.info("delivery works again")
            self._told(page, message, receipt)
        finally:
            self._busy_since = None

    def _told(self, page: Page, message: Message, receipt: dict[str, object]) -> None:
        with self._changed:
            self._trouble.pop(page.to, None)
            self._told_trouble.pop(page.to, None)
            self._book.told(page, message, receipt, self._clock.time_ns())

    def _failed(self, page: Page, message: Message, error: NotNow) -> None:
        self.counts["failures"] += 1
        with self._changed:
            now_ns = self._clock.time_ns()
            before = self._trouble.get(page.to)
            failures = 1 if before is None else before.failures + 1
            pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32), LAST_PAUSE_S) * self._jitter()
            if error.retry_after_s is not None:
                pause = min(max(error.retry_after_s, 0.0), MAX_RETRY_AFTER_S)
            said = str(error) if error.hint is None else f"{error} ({error.hint})"
            until_ns = now_ns + int(pause * _SECOND_NS)
            self._trouble[page.to] = _Trouble(failures, until_ns, said)
            self._book.failed(page, message, sure=error.sure, receipt=error.receipt, now_ns=now_ns)
            fresh = self._told_trouble.get(page.to) != said
            self._told_trouble[page.to] = said
        if fresh:
            self._logger.warning("%s; next try in %.0f s", said, pause)

    def _save(self) -> None:
        """Write what changed; where the disk does not take it, what waits is told all the same."""
        with self._writing:
            with self._changed:
                keys, self._book.unsaved = self._book.unsaved, set()
                pages = {key: _copy(self._book.get(key)) for key in keys}
            if not pages:
                return
            try:
                self._outbox.save(pages)
            except NotSaved as error:
                with self._changed:
                    self._book.unsaved |= keys
                    self._save_due = time.monotonic() + SAVE_AGAIN_S
                    fresh, self._not_saved = self._not_saved is None, str(error)
                if fresh:
                    self._logger.error("%s", error)  # noqa: TRY400
            else:
                self._saved_at = time.monotonic()
                with self._changed:
                    fresh, self._not_saved = self._not_saved is not None, None
                if fresh:
                    self._logger.info("writing to %s again", self._outbox.path)


def _copy(page: Page | None) -> Page | None:
    return None if page is None else attrs.evolve(page)


def _debugging(logger: logging.Logger) -> bool:
    return logger.isEnabledFor(logging.DEBUG)
