"""The records that travel through Linnix: the vocabulary of every plugin.

A *record* is born in a collector, stamped once by the agent (``seq``, ``host``,
``run_id``, ``boot_id``) and never changed after handlers have seen it. The attributes
of an event, a sample, a system sample, a cgroup sample and a loss are exactly the keys
of their JSON line (`linnix_core.codec`); ``None`` is JSON's ``null`` and always means
*not known*, never zero.

Times that end in ``_ns`` are nanoseconds; ``ts_ns`` counts from the Unix epoch,
``start_ns`` from boot. Sizes end in ``_bytes``. Percentages are of one CPU core where a
process or cgroup is measured (so several threads pass 100) and of the whole machine in
a `SystemSample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import attrs
import msgspec

__all__ = [
    "CLASSES",
    "SEVERITIES",
    "VERDICTS",
    "Alert",
    "AllowedAction",
    "Answer",
    "CgroupSample",
    "Deployment",
    "Evidence",
    "Fact",
    "Feedback",
    "Health",
    "Incident",
    "IncidentClass",
    "IncidentProcess",
    "Insight",
    "Loss",
    "Metric",
    "ModelSpec",
    "Mount",
    "Origin",
    "Pressure",
    "ProcessEvent",
    "ProcessKey",
    "ProcessSample",
    "Query",
    "ReasonRequest",
    "Record",
    "RequestProcess",
    "Result",
    "Severity",
    "Subject",
    "SystemSample",
    "Verdict",
]

EventKind: TypeAlias = Literal["seen", "fork", "exec", "exit", "oom"]
Severity: TypeAlias = Literal["info", "low", "medium", "high", "critical"]
Verdict: TypeAlias = Literal["useful", "noise", "wrong"]
IncidentClass: TypeAlias = Literal[
    "fork_storm",
    "short_job_flood",
    "runaway_tree",
    "cpu_spin",
    "io_saturation",
    "oom_risk",
    "normal",
]

#: Every incident class, in the order of the insight schema.
CLASSES: tuple[IncidentClass, ...] = (
    "fork_storm",
    "short_job_flood",
    "runaway_tree",
    "cpu_spin",
    "io_saturation",
    "oom_risk",
    "normal",
)

#: Severities from the least to the most urgent.
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")

VERDICTS: tuple[Verdict, ...] = ("useful", "noise", "wrong")


class ProcessKey(NamedTuple):
    """Identity of a process that survives the reuse of its pid.

    ``pid`` is the thread group id, never a thread's. ``start_ns`` comes from
    `linnix_core.processes.start_time_ns` and nowhere else. A plain tuple of the same
    three values is equal to a key and hashes alike.
    """

    boot_id: str
    pid: int
    start_ns: int


class ProcessEvent(msgspec.Struct, gc=False, tag_field="type", tag="event"):
    """A change in the life of one process.

    ``kind`` is ``seen`` (already running when first noticed: it fills the process table
    and counts for no rule), ``fork``, ``exec``, ``exit`` or ``oom`` (chosen by the
    kernel's OOM killer). ``source`` tells whether the kernel reported it or two polls
    were compared. On a fork, comm, exe and args are those that the child has from its
    parent; an exec replaces them. ``truncated`` is true when comm, exe, args or cwd were cut.
    ``exit_code`` and ``signal`` exclude each other; ``cpu_ns`` is user plus system time;
    ``max_rss_bytes`` may include the image of the parent before an exec.
    """

    kind: EventKind
    pid: int
    start_ns: int
    ppid: int | None = None
    parent_start_ns: int | None = None
    uid: int | None = None
    gid: int | None = None
    comm: str = ""
    exe: str | None = None
    args: tuple[str, ...] | None = None
    cwd: str | None = None
    cgroup: str | None = None
    source: Literal["kernel", "polled"] = "kernel"
    truncated: bool = False
    exit_code: int | None = None
    signal: int | None = None
    duration_ns: int | None = None
    cpu_ns: int | None = None
    max_rss_bytes: int | None = None
    labels: dict[str, str] | None = None
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: ClassVar[Literal["event"]] = "event"

    #: What `attrs.evolve`, `attrs.fields` and `attrs.asdict` go by, as with every other record.
    #: It is no attrs class because there are tens of thousands a second of them: a Struct is
    #: made in a quarter of the time, and holds no cycle that anybody would have to look for.
    __attrs_attrs__: ClassVar[Any]

    @property
    def key(self) -> ProcessKey:
        """The process that this event is about."""
        return ProcessKey(self.boot_id, self.pid, self.start_ns)

    @property
    def parent_key(self) -> ProcessKey | None:
        """Its parent, or None where the start time of the parent is not known."""
        if self.ppid is None or self.parent_start_ns is None:
            return None
        return ProcessKey(self.boot_id, self.ppid, self.parent_start_ns)


def _as_attrs(cls: Any, **constants: str) -> Any:
    """How attrs would describe the fields of a Struct; the constants are not for its maker."""
    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    required = len(names) - len(defaults)
    fields = {name: attrs.field() for name in names[:required]}
    fields |= {
        name: attrs.field(default=default)
        for name, default in zip(names[required:], defaults, strict=True)
    }
    fields |= {name: attrs.field(default=said, init=False) for name, said in constants.items()}
    return attrs.fields(attrs.make_class(cls.__name__, fields))


ProcessEvent.__attrs_attrs__ = _as_attrs(ProcessEvent, type="event")


@attrs.define
class ProcessSample:
    """What one process used over an interval of ``interval_ns`` that ends at ``ts_ns``.

    ``cpu_percent`` is of one core and not capped at 100; so is ``cpu_delay_percent``, the time
    that its threads were ready to run and waited for a CPU (the kernel's ``run_delay``): both
    together are what it would use if nobody else wanted any. Of what is resident,
    ``rss_anon_bytes`` is its own and ``rss_shmem_bytes`` is shared memory, which counts for
    each process that has it (``RssAnon`` and ``RssShmem`` of proc(5)); the rest is of files,
    and the kernel can have it back. ``read_bytes`` and
    ``write_bytes`` are storage I/O within the interval; ``read_offset_bytes`` is how far it got
    in the regular files that it only reads, wherever these came from. ``state`` is the letter of
    ``/proc/PID/stat`` (R S D Z T t X I).
    """

    pid: int
    start_ns: int
    interval_ns: int
    comm: str = ""
    cpu_percent: float | None = None
    cpu_delay_percent: float | None = None
    rss_bytes: int | None = None
    rss_anon_bytes: int | None = None
    rss_shmem_bytes: int | None = None
    threads: int | None = None
    fds: int | None = None
    state: str | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    read_offset_bytes: int | None = None
    cgroup: str | None = None
    labels: dict[str, str] | None = None
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["sample"] = attrs.field(default="sample", init=False)

    @property
    def key(self) -> ProcessKey:
        """The process that was measured."""
        return ProcessKey(self.boot_id, self.pid, self.start_ns)


@attrs.define
class Pressure:
    """Pressure stall information of one resource (kernel: Documentation/accounting/psi).

    ``*_avg10`` is the share of the last ten seconds, in percent, in which some or all
    non-idle tasks were stalled; ``*_total_us`` is the stall time since boot.
    """

    some_avg10: float
    some_total_us: int
    full_avg10: float | None = None
    full_total_us: int | None = None


@attrs.define
class CgroupSample:
    """What one cgroup used and waited for over an interval.

    ``cpu_percent`` is of one core; ``throttled_ns`` is time throttled within the
    interval; ``memory_events`` holds the counters of ``memory.events`` since creation.
    """

    cgroup: str
    interval_ns: int
    cpu_percent: float | None = None
    throttled_ns: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_events: dict[str, int] | None = None
    psi_cpu: Pressure | None = None
    psi_memory: Pressure | None = None
    psi_io: Pressure | None = None
    labels: dict[str, str] | None = None
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["cgroup"] = attrs.field(default="cgroup", init=False)


@attrs.define
class SystemSample:
    """The whole machine over an interval: ``cpu_percent`` is of all cores (0 to 100)."""

    interval_ns: int
    cpus: int | None = None
    cpu_percent: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    load1: float | None = None
    load5: float | None = None
    load15: float | None = None
    processes: int | None = None
    disk_read_bytes_per_s: float | None = None
    disk_write_bytes_per_s: float | None = None
    net_receive_bytes_per_s: float | None = None
    net_transmit_bytes_per_s: float | None = None
    psi_cpu: Pressure | None = None
    psi_memory: Pressure | None = None
    psi_io: Pressure | None = None
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["system"] = attrs.field(default="system", init=False)


@attrs.define
class Loss:
    """Records that did not get through ``component``, for the reason ``why``.

    ``lost`` counts the window of ``window_ns`` that ends at ``ts_ns``, ``lost_total``
    everything since the run began. The counters beside it were read in the same
    instant, since the run began, where the component has them, and balance exactly:

    * ``emitted = received + dropped`` for a source that counts for itself, such as the
      programs in the kernel: ``dropped`` sums what the ring had no room for and what was
      throttled. It has a record in every window in which it made anything, with ``lost``
      0 where nothing was lost;
    * ``received = handled + dropped + queued`` for a queue, where ``dropped`` sums every
      reason.
    """

    component: str
    why: str
    lost: int
    lost_total: int
    window_ns: int
    emitted: int | None = None
    received: int | None = None
    handled: int | None = None
    dropped: int | None = None
    queued: int | None = None
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["loss"] = attrs.field(default="loss", init=False)


@attrs.frozen
class Evidence:
    """One number that an alert rests on: ``Evidence("forks", 812, "forks")``.

    ``unit`` follows UCUM where it has one (``s``, ``By``, ``%``) and otherwise names
    the thing that is counted.
    """

    name: str
    value: float
    unit: str


@attrs.frozen
class Subject:
    """Whom an alert is about: the offender, not the reporter."""

    key: ProcessKey | None = None
    exe: str | None = None
    comm: str = ""
    cgroup: str | None = None


@attrs.define
class Alert:
    """A rule fired. ``class_`` (``class`` in JSON) is None for a rule without a class.

    ``id`` is filled in by the core. ``evidence`` carries the measured value first and
    the limit that it passed after it.
    """

    rule: str
    severity: Severity
    message: str
    class_: IncidentClass | None = None
    subject: Subject = attrs.field(factory=Subject)
    evidence: tuple[Evidence, ...] = ()
    actions: tuple[str, ...] = ()
    labels: dict[str, str] | None = None
    id: str = ""
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["alert"] = attrs.field(default="alert", init=False)


@attrs.frozen
class IncidentProcess:
    """One process of the tree around an incident, as it was when that opened or got worse.

    ``cpu_percent`` and ``rss_bytes`` are those of its latest sample.
    """

    key: ProcessKey
    relation: Literal["ancestor", "subject", "descendant"]
    parent: ProcessKey | None = None
    comm: str = ""
    exe: str | None = None
    args: tuple[str, ...] | None = None
    uid: int | None = None
    cgroup: str | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    ended_ns: int | None = None


@attrs.frozen
class Origin:
    """Where the process of an incident came from, read off its ancestors and its cgroup.

    ``name`` is the comm of the daemon, the unit of the service or session, or the id of
    the container; ``key`` the ancestor that told, if one did.
    """

    kind: Literal["cron", "ssh", "container", "service", "session"]
    name: str
    key: ProcessKey | None = None


@attrs.define
class Incident:
    """Alerts with one fingerprint: what people are told about.

    ``fingerprint`` is made of class, root executable and cgroup. Each publication is a
    new record with a new ``seq`` and the same ``id``; ``change`` says why it was
    published. ``alerts`` counts all of them, ``evidence`` holds the latest of each rule and
    ``peak`` the largest first number of each. One that comes back soon after it was closed
    is updated, not opened: ``reopened`` counts how often. ``tree`` is the tree around the
    subject, the oldest ancestor first.
    """

    fingerprint: str
    severity: Severity
    summary: str
    class_: IncidentClass | None = None
    subject: Subject = attrs.field(factory=Subject)
    change: Literal["opened", "worse", "updated", "closed"] = "opened"
    rules: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    peak: tuple[Evidence, ...] = ()
    actions: tuple[str, ...] = ()
    origin: Origin | None = None
    tree: tuple[IncidentProcess, ...] = ()
    alerts: int = 1
    reopened: int = 0
    opened_ns: int = 0
    updated_ns: int = 0
    closed_ns: int | None = None
    labels: dict[str, str] | None = None
    id: str = ""
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["incident"] = attrs.field(default="incident", init=False)


@attrs.frozen
class Fact:
    """A numbered fact of a reason request; ``process`` is a ``P`` id of that request.

    Handlers that implement ``linnix_evidence`` leave ``id`` empty: the core numbers.
    """

    name: str
    value: float
    unit: str
    process: str | None = None
    id: str = ""


@attrs.define
class Insight:
    """Why an incident happened, in one sentence that its facts support.

    The keys of the insight schema (``class confidence primary_process why actions``)
    plus where they come from: which reasoner, which facts it cites. ``confidence`` is
    the reasoner's own, 0 to 1. ``grounded`` is true for every delivered insight: others
    are discarded and counted.
    """

    class_: IncidentClass
    confidence: float
    primary_process: str | None
    why: str
    actions: tuple[str, ...]
    incident: str = ""
    reasoner: str = ""
    facts: tuple[Fact, ...] = ()
    grounded: bool = True
    id: str = ""
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["insight"] = attrs.field(default="insight", init=False)


@attrs.define
class Feedback:
    """What a person says of an incident: worth telling, noise, or wrong about the cause.

    ``by`` is who or what says it, as they name themselves.
    """

    incident: str
    verdict: Verdict
    note: str = ""
    by: str = ""
    id: str = ""
    ts_ns: int = 0
    seq: int = 0
    host: str = ""
    run_id: str = ""
    boot_id: str = ""
    type: Literal["feedback"] = attrs.field(default="feedback", init=False)


#: What collectors emit and handlers get in batches.
Record: TypeAlias = ProcessEvent | ProcessSample | CgroupSample | SystemSample | Loss


# --- what a reasoner gets and gives ---------------------------------------------------


@attrs.frozen
class RequestProcess:
    """A process that a reasoner may name, by its ``id`` (``P1`` …)."""

    id: str
    key: ProcessKey
    comm: str
    exe: str | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None


@attrs.frozen
class AllowedAction:
    """A proposal that a reasoner may choose, by its ``id`` (``a1`` …)."""

    id: str
    text: str


@attrs.frozen
class ReasonRequest:
    """Everything a reasoner may use: it answers with ids from here and nothing else."""

    incident: Incident
    facts: tuple[Fact, ...]
    processes: tuple[RequestProcess, ...]
    actions: tuple[AllowedAction, ...]
    classes: tuple[IncidentClass, ...] = CLASSES
    timeout_s: float = 30.0


@attrs.frozen
class Answer:
    """What a reasoner chose. ``confidence`` is a whole number from 0 to 100.

    ``sentence`` may offer wording for ``why``; it is used only when every number and
    process in it was given, and is otherwise replaced by a rendering of the facts.
    """

    class_: IncidentClass
    confidence: int
    process: str | None = None
    facts: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    sentence: str | None = None


# --- what deployers get and give ------------------------------------------------------


@attrs.frozen
class ModelSpec:
    """A model to serve under ``name``: where its file is and in which format."""

    name: str
    path: str
    format: str = "gguf"
    quantization: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Deployment:
    """A served model: which deployer answers for it, and where clients reach it."""

    name: str
    deployer: str
    model: str
    endpoint: str
    digest: str | None = None
    created_ns: int = 0
    details: Mapping[str, Any] = attrs.field(factory=dict)


# --- what any plugin says of itself ---------------------------------------------------


@attrs.frozen
class Health:
    """How a component feels. ``limits`` lists what it cannot see or do even when ok."""

    status: Literal["ok", "degraded", "failed"] = "ok"
    reason: str = ""
    limits: tuple[str, ...] = ()


@attrs.frozen
class Metric:
    """One number of a component, for whoever exports metrics."""

    name: str
    value: float
    unit: str = "1"
    kind: Literal["counter", "gauge"] = "gauge"
    labels: Mapping[str, str] = attrs.field(factory=dict)
    help: str = ""


@attrs.frozen
class Mount:
    """An ASGI application that a handler offers under ``path`` to whoever serves HTTP."""

    path: str
    app: Any
    title: str = ""


@attrs.frozen
class Query:
    """A question to the history: records of these types between two times."""

    types: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    incident: str | None = None
    limit: int = 1000


@attrs.frozen
class Result:
    """What the history had: ``complete`` is false where the limit cut it."""

    records: tuple[Any, ...]
    complete: bool = True
