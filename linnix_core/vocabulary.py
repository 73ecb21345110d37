"""The words that a model's sentence about an incident may be made of.

Names of programs, negations, orders and numbers are left out on purpose: a sentence that
needs another word is replaced by a rendering of the facts.
"""

from __future__ import annotations

__all__ = ["UNITS", "WORDS"]

_WORDS = """
a about above across active activity after again alive all almost also an and another any are as
at available away band bandwidth be because been before began begins behind being below between
block blocked blocks both bound bounded buffers burst bursts busy but by cache caused causes
causing cgroup child children churn class climbing climbs close command commands compared
completes computing constant constantly consumer consumes consuming consumption contention
continues continuously control core cores could count cpu cpus create created creates creating
creation current currently cycle cycles data demand despite device devices disk disks does doing
done down driven drives driving due during each end ended ending ends entire every exceeded
exceeding exceeds excessive exec execs executable executed executes executing execution executions
exhaust exhausted exhausting exhaustion exit exited exiting exits expected explosion far fast
faster few file files filling fills flood flooding floods for fork forked forking forks free
frequent frequently from full fully further gained gaining gains generates generating grew group
grow growing grown grows growth had hard has have heavily heavy held high higher highest holding
holds host however i idle if in incident increase increased increases increasing indicates
indicating infinite intensive into io is it its itself job jobs just keep keeping keeps kept
kernel killer large largest leads leak leaking leaks leaves leaving less level likely limit limits
little live lived lives living load long longer loop looping loops low lower machine made main
makes making many margin may mean means measured memory more most much must near nearing nearly
new occupies of off often on once one ongoing only oom open opens or other others out over own
parent part peak peaks pending per percent pid point possible possibly pressure problem process
processes processor processors produces producing program programs quick quickly raises ran rapid
rapidly rate rather reach reached reaches reaching read reading reads reclaim reclaiming remaining
remains repeated repeatedly resident resource resources rise rises rising risk root rss run
runaway running runs same saturated saturates saturating saturation second seconds seen serves
several share shell shells short shortly should show shows since single slow slowed slowing slows
small so some spawn spawned spawning spawns spike spikes spin spinning spins stall stalled
stalling stalls start started starting starts starve starved starves starving stay staying stays
steadily steady still storage storm stream stress strongly subject subtree such suggests sum surge
sustained swap swapping system takes taking task tasks than that the their them then there these
they this thread threads threshold throttled through throughout throughput time times to too took
top total toward towards tree trees triggered triggering triggers under until up upon usage use
used user uses using usual usually very wait waited waiting waits was well were when where which
while whole whose will window with within without work worker workers working workload would write
writers writes writing wrote
"""

WORDS = frozenset(_WORDS.split())

#: Words that are a unit after a number, by the unit that a fact has.
UNITS = {
    "%": "%",
    "percent": "%",
    "s": "s",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "ms": "ms",
    "b": "By",
    "byte": "By",
    "bytes": "By",
    "kib": "KiB",
    "mib": "MiB",
    "gib": "GiB",
    "kb": "kB",
    "mb": "MB",
    "gb": "GB",
    "min": "min",
    "minute": "min",
    "minutes": "min",
    "h": "h",
    "hour": "h",
    "hours": "h",
    "alert": "alerts",
    "child": "children",
    "children": "children",
    "core": "cores",
    "cores": "cores",
    "exec": "execs",
    "execs": "execs",
    "execution": "executions",
    "executions": "executions",
    "exit": "exits",
    "exits": "exits",
    "fork": "forks",
    "forks": "forks",
    "job": "jobs",
    "jobs": "jobs",
    "process": "processes",
    "processes": "processes",
    "program": "programs",
    "programs": "programs",
    "record": "records",
    "records": "records",
    "task": "tasks",
    "tasks": "tasks",
    "thread": "threads",
    "threads": "threads",
}
