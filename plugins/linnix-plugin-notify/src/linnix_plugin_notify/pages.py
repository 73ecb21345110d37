"""The pages: what was told of each incident, and what is to be told next.

An incident of a route is a *page*. Nothing here waits or sends: `PageBook.take` changes what
is to be told, `PageBook.next_due` says which page is to be told when, and `begin`, `told` and
`failed` keep account. A page is told when it opens, when it changes in a way that its sink can
show, and when it is over; what changes twice before it is told is told once.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from linnix_core import Feedback, Incident, Insight, printable
from linnix_plugin_notify.message import (
    Change,
    Message,
    message_of,
    with_feedback,
    with_insight,
)
from linnix_plugin_notify.routing import HOUR_NS, Router
from linnix_plugin_notify.sinks import Receipt

__all__ = ["Page", "PageBook", "as_dict", "from_dict"]

#: Nanoseconds after the start of an agent until a page of a run before counts as over, unless
#: its incident is there again. An incident is over after five quiet minutes; rules need some
#: time of their own to see it again.
ORPHAN_NS = 600 * 10**9

#: How urgent news are: the most urgent is what a message tells.
_URGENCY: dict[Change, int] = {
    "updated": 0, "explained": 1, "worse": 2, "reopened": 3, "opened": 4,
}  # fmt: skip


@attrs.define(kw_only=True)
class Page:
    """One incident on one route.

    ``version`` counts what was to be told, ``told`` is the version that was told last, and
    ``sending`` one of which telling began: where that is not ``told``, it may have arrived.
    ``told_open`` is whether people believe that it goes on.
    """

    key: str
    mark: str
    run_id: str
    route: str
    to: str
    message: Message
    news: Change = "opened"
    version: int = 1
    told: int = 0
    sending: int = 0
    told_open: bool = False
    receipt: Receipt = attrs.field(factory=dict)
    first_told_ns: int = 0
    last_told_ns: int = 0
    over_ns: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing more is to be told unless it comes back."""
        return not self.message.open and not self.told_open and 0 < self.told >= self.sending


def as_dict(page: Page) -> dict[str, Any]:
    """A page as JSON values."""
    return attrs.asdict(page, recurse=True)


def from_dict(found: dict[str, Any]) -> Page:
    """The page again. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is none."""
    message: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found["message"].items()
    }
    return Page(**{**found, "message": Message(**message)})


class PageBook:
    """All pages of one component. Not safe for threads: its owner has a lock."""

    def __init__(
        self,
        router: Router,
        *,
        to: str,
        updates: bool,
        resolve_after_ns: int,
        update_every_ns: int,
        give_up_ns: int,
        limit: int,
    ) -> None:
        self._router = router
        self._to = to
        self.updates = updates
        self._resolve_after_ns = resolve_after_ns
        self._update_every_ns = update_every_ns
        self._give_up_ns = give_up_ns
        self._limit = limit
        self._pages: dict[str, Page] = {}
        self._of_incident: dict[str, str] = {}
        self._of_mark: dict[str, str] = {}
        self._due: list[tuple[int, int, str]] = []
        self._numbers = itertools.count()
        self._orphans: set[str] = set()
        self._orphans_due_ns = 0
        #: Keys that differ from what is on disk, gone ones too.
        self.unsaved: set[str] = set()
        #: Pages that were never told: by reason.
        self.lost = {"outbox_full": 0, "too_old": 0, "limit": 0}

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages.values())

    def get(self, key: str) -> Page | None:
        """A page by its key."""
        return self._pages.get(key)

    def load(self, pages: Iterable[Page], now_ns: int) -> None:
        """Take over the pages of the runs before."""
        for page in pages:
            self._add(page)
            if page.message.open:
                self._orphans.add(page.key)
            self._schedule(page, now_ns)
        self._orphans_due_ns = now_ns + ORPHAN_NS
        self._router.remember(
            (page.route, page.first_told_ns) for page in self if page.first_told_ns
        )

    # --- what is to be told -----------------------------------------------------------

    def take(self, notice: Incident | Insight | Feedback, now_ns: int) -> Page | None:
        """Note what happened; the page that it concerns, if anybody is told."""
        if isinstance(notice, Incident):
            page = self._take_incident(notice, now_ns)
        else:
            page = self._pages.get(self._of_incident.get(_id(notice.incident), ""))
            if page is None:
                return None
            add = with_insight if isinstance(notice, Insight) else with_feedback
            message = add(page.message, notice)  # type: ignore[arg-type]
            self._change(page, message, "explained")
        if page is not None:
            self._schedule(page, now_ns)
        return page

    def _take_incident(self, incident: Incident, now_ns: int) -> Page | None:
        mark = f"{incident.host}\0{incident.fingerprint}"
        page = self._find(incident, mark)
        if page is None:
            route = None if incident.change == "closed" else self._router.choose(incident)
            if route is None:
                return None
            key = _key(incident)
            page = Page(
                key=key,
                mark=mark,
                run_id=incident.run_id,
                route=route.name,
                to=route.to or self._to,
                message=message_of(incident, key, paged_ns=now_ns),
            )
            self._add(page)
            self._evict()
            return page
        self._orphans.discard(page.key)
        self._of_incident.pop(page.message.incident, None)
        self._of_incident[_id(incident.id)] = page.key
        page.run_id = incident.run_id
        before, fresh = page.message, message_of(incident, page.key)
        message = attrs.evolve(
            fresh,
            why=before.why,
            actions=before.actions if before.why else fresh.actions,
            said=before.said,
            paged_ns=before.paged_ns,
            # Of a page that a new run goes on with: it began when people were told that it did.
            opened_ns=min(before.opened_ns, fresh.opened_ns),
        )
        self._change(page, message, _news(incident, page))
        if message.open:
            page.over_ns = 0
        elif before.open:
            page.over_ns = now_ns
            if self._is_held(page, now_ns):
                self._lose(page, "limit")
                return None
        return page

    def _find(self, incident: Incident, mark: str) -> Page | None:
        """The page of this incident, or the one that an earlier run left open."""
        page = self._pages.get(self._of_incident.get(_id(incident.id), ""))
        if page is None:
            page = self._pages.get(self._of_mark.get(mark, ""))
            if page is not None and (page.run_id == incident.run_id or page.done):
                return None
        return page

    def _change(self, page: Page, message: Message, news: Change) -> None:
        told = page.version <= max(page.told, page.sending)
        if told or _URGENCY[news] > _URGENCY[page.news]:
            page.news = news
        page.message = message
        page.version += 1
        self.unsaved.add(page.key)

    # --- what is due ------------------------------------------------------------------

    def next_due(self, now_ns: int, paused: dict[str, int]) -> tuple[Page | None, int | None]:
        """A page to tell now; or None and when to look again, None for never.

        ``paused`` are the targets that are left alone, and until when.
        """
        self._close_orphans(now_ns)
        later: list[tuple[int, int, str]] = []
        found: Page | None = None
        while self._due and self._due[0][0] <= now_ns and found is None:
            _, number, key = heapq.heappop(self._due)
            page = self._pages.get(key)
            if page is None or (due := self._when(page, now_ns)) is None:
                continue
            due = max(due, paused.get(page.to, 0))
            if page.told == 0 and now_ns - page.message.paged_ns > self._give_up_ns:
                self._lose(page, "too_old")
            elif due > now_ns:
                later.append((due, number, key))
            else:
                found = page
        for entry in later:
            heapq.heappush(self._due, entry)
        moments = [self._due[0][0]] if self._due else []
        if self._orphans:
            moments.append(self._orphans_due_ns)
        return found, min(moments, default=None)

    def begin(self, page: Page) -> tuple[Message, bool]:
        """The message that is to be sent now, and whether it may have arrived already."""
        again = page.sending > page.told
        page.sending = page.version
        self.unsaved.add(page.key)
        return self._message(page, again=again), again

    def told(self, page: Page, message: Message, receipt: Receipt, now_ns: int) -> None:
        """The message arrived."""
        if not page.first_told_ns:
            page.first_told_ns = now_ns
            self._router.spend(page.route, now_ns)
        page.last_told_ns = now_ns
        page.told_open = message.open
        page.receipt = receipt
        page.told = page.sending = message.version
        if page.told >= page.version:
            page.news = "updated"
            if page.message.open != message.open:
                page.version = page.told + 1
        self.unsaved.add(page.key)
        self._schedule(page, now_ns)
        self._evict()

    def failed(
        self, page: Page, message: Message, *, sure: bool, receipt: Receipt | None, now_ns: int
    ) -> None:
        """The message did not arrive, or nobody knows: then ``sure`` is false."""
        if sure:
            page.sending = page.told
        if _URGENCY.get(message.change, 0) > _URGENCY[page.news]:
            page.news = message.change
        if receipt is not None:
            page.receipt = receipt
        self.unsaved.add(page.key)
        self._schedule(page, now_ns)

    def _message(self, page: Page, *, again: bool) -> Message:
        if page.message.open or page.told:
            change = page.news
            if not page.message.open:
                change = "resolved"
            elif not page.told_open:
                change = "reopened" if page.told else "opened"
            elif change == "reopened" and not again:
                change = "updated"  # that it was over has failed to arrive
            return attrs.evolve(page.message, change=change, version=page.version)
        # Over before anybody could be told: first that it was, then that it is over.
        return attrs.evolve(page.message, open=True, change="opened", version=page.version)

    def _when(self, page: Page, now_ns: int) -> int | None:
        """When the page is to be told next; None for never."""
        if not page.told_open:
            if page.told and not page.message.open:
                # Whether they heard that it was back may be unknown.
                unsure = page.sending > page.told
                return page.over_ns + self._resolve_after_ns if unsure else None
            if page.first_told_ns or page.sending > page.told:
                return now_ns
            return self._router.free_ns(page.route, now_ns)
        if not page.message.open:
            return page.over_ns + self._resolve_after_ns
        if page.sending > page.told:
            return now_ns  # nobody knows what they were told last
        if not self.updates or page.told >= page.version:
            return None
        if page.news == "updated":
            return page.last_told_ns + self._update_every_ns
        return now_ns

    def _is_held(self, page: Page, now_ns: int) -> bool:
        never = not (page.told or page.sending)
        return never and self._router.free_ns(page.route, now_ns) > now_ns

    def held(self, now_ns: int) -> int:
        """How many pages wait for the limit of their route."""
        return sum(self._is_held(page, now_ns) for page in self)

    @property
    def waiting(self) -> int:
        """How many pages have something to tell that was not told, whatever they wait for."""
        return sum(
            not page.done and (page.told_open != page.message.open or not page.told)
            for page in self
        )

    def _schedule(self, page: Page, now_ns: int) -> None:
        due = self._when(page, now_ns)
        if due is not None:
            heapq.heappush(self._due, (due, next(self._numbers), page.key))
        if len(self._due) > 4 * len(self._pages) + 64:
            self._due = [
                (when, next(self._numbers), each.key)
                for each in self
                if (when := self._when(each, now_ns)) is not None
            ]
            heapq.heapify(self._due)

    def _close_orphans(self, now_ns: int) -> None:
        if not self._orphans or now_ns < self._orphans_due_ns:
            return
        for key in self._orphans & self._pages.keys():
            page = self._pages[key]
            message = attrs.evolve(
                page.message,
                open=False,
                closed_ns=now_ns,
                remark="not seen again since the agent was restarted",
            )
            self._change(page, message, "updated")
            page.over_ns = now_ns
            self._schedule(page, now_ns)
        self._orphans.clear()

    # --- how many there are -----------------------------------------------------------

    def _add(self, page: Page) -> None:
        self._pages[page.key] = page
        self._of_incident[page.message.incident] = page.key
        self._of_mark[page.mark] = page.key
        self.unsaved.add(page.key)

    def forget(self, now_ns: int) -> None:
        """Drop pages that were over an hour ago: their incidents do not come back."""
        for page in [p for p in self if p.done and not 0 <= now_ns - p.last_told_ns < HOUR_NS]:
            self._drop(page)

    def _evict(self) -> None:
        """Keep to the limit: what is done goes first, then what was never told."""
        if len(self._pages) <= self._limit:
            return
        done = sorted((p for p in self if p.done), key=lambda p: p.last_told_ns)
        for page in done[: max(len(done) // 4, 1)]:
            self._drop(page)
        if not done:
            oldest = min(self, key=lambda p: (p.told_open, p.message.paged_ns))
            self._lose(oldest, "outbox_full")

    def _lose(self, page: Page, why: str) -> None:
        self.lost[why] += 1
        self._drop(page)

    def _drop(self, page: Page) -> None:
        del self._pages[page.key]
        self._orphans.discard(page.key)
        self.unsaved.add(page.key)
        if self._of_mark.get(page.mark) == page.key:
            del self._of_mark[page.mark]
        if self._of_incident.get(page.message.incident) == page.key:
            del self._of_incident[page.message.incident]


def _id(incident: str) -> str:
    return printable(incident, 100)


def _key(incident: Incident) -> str:
    parts = (incident.host, incident.fingerprint, incident.id)
    return "linnix-" + hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _news(incident: Incident, page: Page) -> Change:
    before = page.message
    back = incident.reopened > before.reopened or (not before.open and incident.change != "closed")
    # Nobody hears that it is back who has not heard, as far as is known, that it was over.
    if back and (not page.told_open or page.sending > page.told):
        return "reopened"
    return "worse" if incident.change == "worse" else "updated"
