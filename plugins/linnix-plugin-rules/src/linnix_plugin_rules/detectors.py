"""Every detector by its word in a rule: a new one is a class and a line here."""

from __future__ import annotations

from linnix_plugin_rules.detector import Detector
from linnix_plugin_rules.forks import ForkBurst, ForksPerSec, RunawayTree
from linnix_plugin_rules.rounds import SubtreeCpu, SubtreeRss

__all__ = ["ABSENT_DETECTORS", "DETECTORS"]

DETECTORS: dict[str, type[Detector]] = {
    "forks_per_sec": ForksPerSec,
    "fork_burst": ForkBurst,
    "runaway_tree": RunawayTree,
    "subtree_cpu_pct": SubtreeCpu,
    "subtree_rss_mb": SubtreeRss,
}

#: Words of the original Linnix that are recognised without anything being detected.
ABSENT_DETECTORS = (
    "short_job_flood",
    "exec_rate",
    "zombie_count",
    "system_psi_cpu",
    "system_psi_memory",
    "system_psi_io",
)
