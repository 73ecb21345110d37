"""What the API answers with; `linnix_plugin_http.openapi` reads the document off these classes.

Every key is always there. ``null`` means *not known*, never zero. Names that the reference
implementation uses are kept; times without a unit in their name are seconds since 1970.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from linnix_core import Insight, Loss
from linnix_plugin_http.state import SystemPoint

__all__ = [
    "AgentMetrics",
    "ComponentInfo",
    "Done",
    "EventExtras",
    "FeedbackGiven",
    "FeedbackOfReference",
    "Graph",
    "GraphNode",
    "Healthz",
    "IncidentExtras",
    "IncidentStats",
    "InsightRecord",
    "K8s",
    "LossReport",
    "MountInfo",
    "Overview",
    "ProcessInfo",
    "Queue",
    "Readyz",
    "Refusal",
    "Status",
    "System",
    "SystemHistory",
    "TimelineEntry",
    "Tree",
]


class Refusal(Struct, kw_only=True):
    """Any answer that is not 2xx."""

    error: Annotated[str, Meta(description="what was wrong, as a sentence")]
    hint: Annotated[str | None, Meta(description="what to do next")] = None


class Done(Struct, kw_only=True):
    """It was taken in."""

    status: Literal["ok"] = "ok"


class Healthz(Struct, kw_only=True):
    """The server answers; whether it sees anything is said beside."""

    status: Literal["ok"] = "ok"
    kernel_instrumentation: Literal["active", "unavailable"]
    transport: Annotated[str, Meta(description="the collector that sees processes, or userspace")]


class Readyz(Struct, kw_only=True):
    """Whether this agent sees what it is there for."""

    ready: bool
    kernel_instrumentation: Literal["active", "unavailable"]
    transport: str
    btf_available: bool
    rss_probe: str
    reason: str | None


class K8s(Struct, kw_only=True):
    """Where a process runs, as far as labels tell."""

    pod_name: str
    namespace: str | None
    container_name: str | None


class ProcessInfo(Struct, gc=False):
    """A process. ``(start_ns, pid)`` is its identity on this boot."""

    pid: int
    ppid: int | None
    uid: int | None
    gid: int | None
    comm: str
    event_type: Literal["exit", "unknown"]
    state: Literal["running", "exited"]
    cpu_pct: Annotated[float | None, Meta(description="of one core, not capped at 100")]
    mem_pct: Annotated[float | None, Meta(description="of the memory of the machine")]
    age_sec: float | None
    k8s: K8s | None
    priority: str | None
    start_ns: Annotated[int, Meta(description="nanoseconds since boot")]
    parent_start_ns: int | None
    exe: str | None
    args: list[str] | None
    cwd: str | None
    cgroup: str | None
    labels: dict[str, str] | None
    rss_bytes: int | None
    threads: int | None
    fds: int | None
    activity: Annotated[str | None, Meta(description="R S D Z T … as in /proc/PID/stat")]
    read_bytes: Annotated[int | None, Meta(description="within the interval of the sample")]
    write_bytes: int | None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None


class GraphNode(Struct, kw_only=True):
    """One process around another; ``level`` counts generations, ancestors negative."""

    pid: int
    ppid: int | None
    comm: str
    uid: int | None
    gid: int | None
    event_type: Literal["exit", "unknown"]
    relationship: Literal["self", "ancestor", "virtual_root", "sibling", "descendant"]
    level: int
    start_ns: int | None


class Graph(Struct, kw_only=True):
    """The family of a process; ``complete`` is false where it was too large."""

    root: int
    nodes: list[GraphNode]
    complete: bool


class Tree(Struct, kw_only=True):
    """Who lives, or lived at a moment; a process names its parent by ppid and parent_start_ns.

    Everybody in it lived then. ``complete`` says whether nobody is missing; ``changed`` holds
    the pids of those that have executed something else since, and whose names are later ones.
    """

    at: float
    live: bool
    complete: bool
    why_incomplete: str | None
    changed: list[int]
    total: int
    processes: list[ProcessInfo]


class System(Struct, kw_only=True):
    """The machine, from the latest samples."""

    timestamp: float | None
    host: str
    cpus: int | None
    cpu_percent: float | None
    mem_percent: float | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    load_avg: Annotated[list[float | None], Meta(min_length=3, max_length=3)]
    processes: int | None
    disk_read_bytes: Annotated[float | None, Meta(description="per second")]
    disk_write_bytes: float | None
    net_rx_bytes: float | None
    net_tx_bytes: float | None
    psi_cpu_some_avg10: float | None
    psi_memory_some_avg10: float | None
    psi_memory_full_avg10: float | None
    psi_io_some_avg10: float | None
    psi_io_full_avg10: float | None


class SystemHistory(Struct, kw_only=True):
    """The last ten minutes of the run, the latest point last."""

    timestamp: Annotated[float, Meta(description="when this was asked")]
    points: list[SystemPoint]


class EventExtras(Struct, kw_only=True):
    """What the reference's clients expect of an event, besides the keys of the record."""

    event_type: Annotated[int | None, Meta(description="0 exec, 1 fork, 2 exit")]
    event_type_name: Literal["seen", "fork", "exec", "exit", "oom"]
    exit_time_ns: Annotated[int, Meta(description="0: it has not ended")]
    cpu_pct_milli: Annotated[int, Meta(description="always 65535, not known")]
    mem_pct_milli: int
    data: int
    data2: int
    aux: int
    aux2: int


class TimelineEntry(Struct, kw_only=True, rename={"class_": "class"}):
    """An alert, in short."""

    id: str
    timestamp: float
    severity: Literal["info", "low", "medium", "high", "critical"]
    rule: str
    message: str
    host: str
    class_: Annotated[str | None, Meta(description="the class of its incident")]
    pid: int | None
    comm: str


class IncidentExtras(Struct, kw_only=True):
    """What an incident has besides the keys of the record."""

    timestamp: Annotated[float, Meta(description="when it opened")]
    event_type: Annotated[str, Meta(description="its class, else the rule")]
    target_pid: int | None
    target_name: str | None
    psi_cpu: Annotated[float | None, Meta(description="of the machine, when it was published")]
    psi_memory: float | None
    cpu_percent: float | None
    load_avg: str | None
    feedback: Annotated[str | None, Meta(description="the latest verdict: useful noise wrong")]
    llm_analysis: Annotated[str | None, Meta(description="why, in one sentence")]
    llm_analyzed_at: float | None
    investigation_rendered: str | None


class IncidentStats(Struct, kw_only=True):
    """Numbers over the incidents that this run knows."""

    total: int
    open: int
    analyzed: int
    by_severity: dict[str, int]
    circuit_breaker_triggers: int
    avg_recovery_time_ms: Annotated[
        float | None, Meta(description="from the opening to the last alert, of closed ones")
    ]
    feedback_entries: int


class InsightRecord(Struct, kw_only=True):
    """An insight, when it was had, and what people say of its incident."""

    timestamp: float
    insight: Insight
    feedback: str | None


class FeedbackGiven(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a person says of an insight or an incident."""

    feedback: Literal["useful", "noise", "wrong"]
    note: Annotated[str, Meta(max_length=1000)] = ""
    by: Annotated[str, Meta(max_length=100)] = ""


class FeedbackOfReference(Struct, kw_only=True):
    """The same, as the reference's clients send it."""

    insight_id: str
    label: Literal["useful", "noise", "wrong"]
    source: Annotated[str, Meta(max_length=100)] = ""
    user_id: Annotated[str, Meta(max_length=100)] | None = None


class ComponentInfo(Struct, kw_only=True):
    """One component of the run."""

    component: str
    kind: str
    name: str
    state: str
    code: str
    reason: str
    hint: str | None
    plugin: str
    distribution: str
    version: str
    limits: list[str]
    counters: dict[str, int]


class MountInfo(Struct, kw_only=True):
    """A page or route of another plugin."""

    path: str
    title: str


class Queue(Struct, kw_only=True):
    """Records of one component so far."""

    component: str
    received: int
    handled: int
    dropped: int
    queued: int


class LossReport(Struct, kw_only=True):
    """Where records got lost since the run began, and where not."""

    lost_total: Annotated[int, Meta(description="sum over components and reasons")]
    by_component: dict[str, dict[str, int]]
    queues: list[Queue]
    windows: Annotated[list[Loss], Meta(description="the latest records of type loss")]
    stream: dict[str, int]
    evicted_processes: int


class _Consumer(Struct, kw_only=True):
    pid: int
    comm: str
    k8s: K8s | None


class TopCpu(_Consumer, kw_only=True):
    """Who uses the CPU."""

    cpu_percent: float


class TopMemory(_Consumer, kw_only=True):
    """Who holds memory."""

    mem_percent: float
    rss_bytes: int


class Probes(Struct, kw_only=True):
    """What the kernel offers."""

    rss_probe: str
    btf: bool


class Reasoner(Struct, kw_only=True):
    """Who explains."""

    configured: bool
    endpoint: str | None
    timeout_ms: int | None
    names: list[str]


class SlackStats(Struct, kw_only=True):
    """Kept for the reference's clients; always zero here."""

    sent: int = 0
    failed: int = 0
    approved: int = 0
    denied: int = 0


class Status(Struct, kw_only=True):
    """The run in one answer."""

    version: str
    host: str
    run_id: str
    uptime_s: float
    offline: bool
    cpu_pct: Annotated[float, Meta(description="of the agent, of one core")]
    rss_mb: float | None
    events_per_sec: int
    events_total: int
    rb_overflows: int
    rate_limited: int
    dropped_events_total: int
    perf_poll_errors: int
    kernel_version: str
    aya_version: str | None
    transport: str
    kernel_instrumentation: Literal["active", "unavailable"]
    active_rules: int | None
    top_rss: list[TopMemory]
    top_cpu: list[TopCpu]
    probes: Probes
    reasoner: Reasoner
    processes: int
    incidents_open: int
    incidents_last_1h: int
    feedback_entries: int
    slack_stats: SlackStats
    subscribers: int
    components: dict[str, int]


class DropsByType(Struct, kw_only=True):
    """Drops of one kind of event."""

    event_type: int
    drops: int


class AgentMetrics(Struct, kw_only=True):
    """The agent's own numbers, and under ``plugins`` what components say of themselves."""

    cpu_percent: float
    rss: Annotated[int | None, Meta(description="kB")]
    subscribers: int
    queue_depth: int
    dropped_events_total: int
    alerts_active: int
    uptime_seconds: float
    events_per_sec: int
    events_total: int
    perf_poll_errors: int
    rate_limited: int
    alerts_emitted: int
    alerts_generated: int
    lineage_hits: int
    lineage_misses: int
    drops_by_type: list[DropsByType]
    rss_probe_mode: str
    kernel_btf_available: bool
    slack_sent: int
    slack_failed: int
    insights: int
    plugins: list[Any]


class Consumer(Struct, kw_only=True):
    """A process in an overview."""

    pid: int
    comm: str
    cpu_percent: float | None = None
    mem_percent: float | None = None


class OverviewMetrics(Struct, kw_only=True):
    """The machine, in an overview."""

    cpu_percent: float | None
    mem_percent: float | None
    load_avg: list[float | None]


class OverviewAlert(Struct, kw_only=True):
    """An alert, in an overview."""

    comm: str
    reason: str
    pid: int | None


class Overview(Struct, kw_only=True):
    """What is going on, from what has been explained already.

    Nothing is computed for it: ``queued`` names the incidents whose explanation was asked for.
    """

    summary: str
    risks: list[str]
    metrics: OverviewMetrics
    top_cpu: list[Consumer]
    top_memory: list[Consumer]
    alerts: list[OverviewAlert]
    insight: Insight | None
    queued: list[str]
    timestamp: float
