"""Processes: who lives, who is whose child, and who lived at a moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, TypeAlias
from urllib.parse import urlencode

from msgspec import Meta, Struct

from linnix_core import Process, ProcessEvent, ProcessKey, Query
from linnix_plugin_http.api import Api
from linnix_plugin_http.living import ORDER, TERM, Measure, select, sort
from linnix_plugin_http.moments import Moment, moment_ns
from linnix_plugin_http.operations import Problem, Reply, in_pieces, operation
from linnix_plugin_http.shapes import Graph, GraphNode, ProcessInfo, Tree

__all__ = ["Selection", "chosen"]

Pid: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Filters: TypeAlias = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"pattern": TERM})]],
    Meta(max_length=16, description="cpu_pct>5, comm=nginx, exe~python (contains); all must hold"),
]
Order: TypeAlias = Annotated[
    str, Meta(description="FIELD:asc or FIELD:desc", extra_json_schema={"pattern": ORDER})
]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)] | None

#: Processes around another one that a graph shows.
MAX_NODES = 1000

#: What samples tell: of a moment in the past nobody has kept them.
_MEASURED = (
    "cpu_pct",
    "mem_pct",
    "rss_bytes",
    "threads",
    "fds",
    "activity",
    "read_bytes",
    "write_bytes",
)

#: Events since a moment that are looked at to find out who lived then.
MAX_EVENTS = 100_000


class Selection(Struct, kw_only=True):
    """Which processes, and in which order."""

    filter: Filters = []
    sort: Order | None = None
    limit: Annotated[Limit, Meta(description="at most; max_page is the most in any case")] = None
    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0


class OnePid(Struct, kw_only=True):
    """A living process."""

    pid: Pid


class OnePpid(Struct, kw_only=True):
    """A parent."""

    ppid: Pid


class AtMoment(Struct, kw_only=True):
    """When, and below whom."""

    at: Moment | None = None
    pid: Annotated[Pid | None, Meta(description="only this process and those below it")] = None
    limit: Annotated[Limit, Meta(description="at most; max_page is the most in any case")] = None


def chosen(api: Api, ask: Selection) -> tuple[list[Process], int, Measure]:
    """The page that is asked for, how many there are in all, and what measured them."""
    measure = api.measure()
    found = select(api.living.all(), ask.filter, measure)
    if ask.sort is not None:
        found = sort(found, ask.sort, measure)
    limit = min(ask.limit or api.config.max_page, api.config.max_page)
    return found[ask.offset : ask.offset + limit], len(found), measure


@operation("GET", "/processes", returns=list[ProcessInfo], blocking=True)
def processes(api: Api, ask: Selection) -> Reply:
    """Who lives. ``X-Total-Count`` says how many there are; ``Link`` leads to the next page."""
    page, total, measure = chosen(api, ask)
    headers = {"x-total-count": str(total)}
    if ask.offset + len(page) < total and page:
        rest = {"sort": ask.sort} if ask.sort else {}
        query = urlencode(
            [("filter", term) for term in ask.filter]
            + list(rest.items())
            + [("limit", str(len(page))), ("offset", str(ask.offset + len(page)))]
        )
        # Relative: it holds behind a proxy that serves this below a path of its own, too.
        headers["link"] = f'<?{query}>; rel="next"'
    return Reply(in_pieces(measure.shapes, page), headers)


@operation("GET", "/processes/{pid}", statuses=(404,))
def process(api: Api, ask: OnePid) -> ProcessInfo:
    """The living process that has this pid now."""
    return api.measure().shape(_living(api, ask.pid))


@operation("GET", "/ppid/{ppid}", blocking=True)
def children(api: Api, ask: OnePpid) -> list[ProcessInfo]:
    """The living processes that this one forked; empty where there are none."""
    found = [
        each for each in api.living.all() if each.parent is not None and each.parent.pid == ask.ppid
    ]
    measure = api.measure()
    return measure.shapes(found[: api.config.max_page])


@operation("GET", "/graph/{pid}", statuses=(404,), blocking=True)
def graph(api: Api, ask: OnePid) -> Graph:
    """The family of a process: ancestors, siblings, descendants."""
    view = api.context.processes
    root = _living(api, ask.pid, "PID not found")
    nodes = [_node(root, "self", 0)]
    ancestors = view.ancestors(root.key)
    nodes += [_node(each, "ancestor", -n) for n, each in enumerate(ancestors, 1)]
    last = (ancestors or [root])[-1]
    if last.parent is not None:
        nodes.append(
            GraphNode(
                pid=last.parent.pid,
                ppid=None,
                comm="",
                uid=None,
                gid=None,
                event_type="unknown",
                relationship="virtual_root",
                level=-len(ancestors) - 1,
                start_ns=last.parent.start_ns,
            )
        )
    if root.parent is not None:
        siblings = view.children(root.parent)
        nodes += [_node(each, "sibling", 0) for each in siblings if each.key != root.key]
    below = view.descendants(root.key, limit=MAX_NODES)
    levels = {root.key: 0}
    for each in below:
        level = levels.get(each.parent, 0) + 1 if each.parent is not None else 1
        levels[each.key] = level
        nodes.append(_node(each, "descendant", level))
    complete = len(nodes) <= MAX_NODES and len(below) < MAX_NODES
    return Graph(root=ask.pid, nodes=nodes[:MAX_NODES], complete=complete)


@operation("GET", "/tree", statuses=(404,), blocking=True)
def tree(api: Api, ask: AtMoment) -> Tree:
    """Who lives, or lived at a moment, as far as events since then are in memory or history."""
    measure = api.measure()
    now_ns = time.time_ns()
    at_ns = now_ns if ask.at is None else moment_ns(ask.at, "at")
    living = api.living.all()
    changed: list[int] = []
    why: str | None = None
    live = at_ns >= now_ns or ask.at is None
    everybody: Sequence[Process] = living
    shapes = measure.shapes
    if not live:
        everybody, changed, why = _lived(api, measure, living, at_ns)
        shapes = partial(_as_then, measure, at_ns)
    elif lost := api.context.processes.evicted:
        why = f"{lost} processes had to be given up: there are too many"
    if ask.pid is not None:
        everybody = _below(everybody, ask.pid)
        if not everybody:
            raise Problem(404, f"no process with the pid {ask.pid} is known to have lived then")
    limit = min(ask.limit or api.config.max_page, api.config.max_page)
    if len(everybody) > limit:
        why = why or f"only {limit} of {len(everybody)} are shown"
    return Tree(
        at=at_ns / 1e9,
        live=live,
        complete=why is None,
        why_incomplete=why,
        changed=changed,
        total=len(everybody),
        processes=in_pieces(shapes, everybody[:limit]),
    )


# --- a moment in the past ---------------------------------------------------------------


def _lived(
    api: Api, measure: Measure, living: Sequence[Process], at_ns: int
) -> tuple[list[Process], list[int], str | None]:
    """Who lived then: who began before and lives still, or has ended since."""
    events, why = _events_since(api, at_ns)
    found = {each.key: each for each in living if measure.started_ns(each) <= at_ns}
    changed: set[int] = set()
    for event in events:
        if event.kind == "exit" and event.key not in found:
            ended = _ended(event)
            if measure.started_ns(ended) <= at_ns < event.ts_ns:
                found[event.key] = ended
        elif event.kind == "exec" and event.key in found:
            changed.add(event.pid)
    # An exec may have come before the exit that told us of the process.
    changed |= {e.pid for e in events if e.kind == "exec" and e.key in found}
    return list(found.values()), sorted(changed), why


def _as_then(measure: Measure, at_ns: int, processes: Sequence[Process]) -> list[ProcessInfo]:
    """As old as they were at that moment, and without what has been measured since."""
    found = measure.shapes(processes)
    for info, process in zip(found, processes, strict=True):
        for name in _MEASURED:
            setattr(info, name, None)
        if info.age_sec is not None:
            info.age_sec = round(max(at_ns - measure.started_ns(process), 0) / 1e9, 2)
    return found


def _events_since(api: Api, at_ns: int) -> tuple[list[ProcessEvent], str | None]:
    whole, remembered = api.stream.history()
    events = [each for each in remembered if isinstance(each, ProcessEvent)]
    later = [each for each in events if each.ts_ns > at_ns]
    if events and events[0].ts_ns <= at_ns and not api.state.losses_by_component():
        return later, None
    result = api.context.query(Query(("event",), since_ns=at_ns, limit=MAX_EVENTS))
    if result is None:
        why = None if whole else "no history is kept; linnix-plugin-sqlite keeps one"
        began = api.state.began_ns
        if at_ns < began:
            why = "it was before this run, and no history is kept"
        return later, why or _losses(api)
    recorded = [each for each in result.records if isinstance(each, ProcessEvent)]
    why = None if result.complete else "more has happened since than can be looked at"
    if at_ns < api.state.began_ns:
        why = why or "it was before this run: what ended while no agent ran is not known"
    return recorded, why or _losses(api)


def _losses(api: Api) -> str | None:
    lost = sum(n for each in api.state.losses_by_component().values() for n in each.values())
    return f"{lost} records were lost in this run" if lost else None


def _ended(event: ProcessEvent) -> Process:
    return Process(
        key=event.key,
        parent=event.parent_key,
        comm=event.comm,
        exe=event.exe,
        args=event.args,
        uid=event.uid,
        gid=event.gid,
        cwd=event.cwd,
        cgroup=event.cgroup,
        labels=event.labels,
        first_ns=event.ts_ns - (event.duration_ns or 0),
        ended_ns=event.ts_ns,
        exit_code=event.exit_code,
        signal=event.signal,
        duration_ns=event.duration_ns,
    )


# --- families ---------------------------------------------------------------------------


def _living(api: Api, pid: int, message: str = "Not found") -> Process:
    found = api.context.processes.find(pid)
    if found is None:
        raise Problem(404, message, hint=f"no living process has the pid {pid}")
    return found


def _node(process: Process, relationship: str, level: int) -> GraphNode:
    return GraphNode(
        pid=process.pid,
        ppid=None if process.parent is None else process.parent.pid,
        comm=process.comm,
        uid=process.uid,
        gid=process.gid,
        event_type="unknown" if process.alive else "exit",
        relationship=relationship,  # type: ignore[arg-type]
        level=level,
        start_ns=process.key.start_ns,
    )


def _below(processes: Iterable[Process], pid: int) -> list[Process]:
    """The process of that pid and everybody below it, nearest first."""
    of_parent: dict[ProcessKey | None, list[Process]] = {}
    roots = []
    for each in processes:
        of_parent.setdefault(each.parent, []).append(each)
        if each.pid == pid:
            roots.append(each)
    found: dict[ProcessKey, Process] = {each.key: each for each in roots}
    level = roots
    while level:
        level = [
            child
            for each in level
            for child in of_parent.get(each.key, ())
            if child.key not in found
        ]
        found.update((each.key, each) for each in level)
    return list(found.values())
