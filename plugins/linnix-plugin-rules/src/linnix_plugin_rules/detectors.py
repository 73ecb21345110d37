"""Every detector by its word in a rule: a new one is a class and a line here."""

from __future__ import annotations

from linnix_plugin_rules.counting import (
    CrashLoop,
    ExecRate,
    ForkBurst,
    ForksPerSec,
    OomKill,
    RunawayTree,
    ShortJobFlood,
)
from linnix_plugin_rules.detector import Detector
from linnix_plugin_rules.memory import RssGrowth
from linnix_plugin_rules.pressure import (
    CgroupPsiCpu,
    CgroupPsiIo,
    CgroupPsiMemory,
    SystemPsiCpu,
    SystemPsiIo,
    SystemPsiMemory,
)
from linnix_plugin_rules.rounds import (
    FdCount,
    IoRate,
    SubtreeCpu,
    SubtreeRss,
    ThreadCount,
    ZombieCount,
)

__all__ = ["DETECTORS"]

DETECTORS: dict[str, type[Detector]] = {
    "forks_per_sec": ForksPerSec,
    "fork_burst": ForkBurst,
    "runaway_tree": RunawayTree,
    "short_job_flood": ShortJobFlood,
    "exec_rate": ExecRate,
    "crash_loop": CrashLoop,
    "oom_kill": OomKill,
    "subtree_cpu_pct": SubtreeCpu,
    "subtree_rss_mb": SubtreeRss,
    "rss_growth": RssGrowth,
    "io_rate": IoRate,
    "thread_count": ThreadCount,
    "fd_count": FdCount,
    "zombie_count": ZombieCount,
    "system_psi_cpu": SystemPsiCpu,
    "system_psi_memory": SystemPsiMemory,
    "system_psi_io": SystemPsiIo,
    "cgroup_psi_cpu": CgroupPsiCpu,
    "cgroup_psi_memory": CgroupPsiMemory,
    "cgroup_psi_io": CgroupPsiIo,
}
