"""The figures, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from evaluation.cases import CLASSES
from evaluation.figures import percentile, poisson_bound, wilson
from evaluation.judging import Judged, Outcome, Wrong, seconds_of

__all__ = ["Time", "printed", "score"]

#: A leak has to be told so long before the limit.
LEAD_S = 60.0


@attrs.frozen
class Time:
    """How long was watched, in seconds of one clock."""

    recorded_s: float
    ordinary_s: float
    #: Added up over cases that ran beside each other.
    ordinary_cases_s: float
    ordinary_cases: int
    void: int
    agent_cpu_s: float
    agent_rss_bytes: int
    events: int
    lost: int


def time_watched(truths: Sequence[Mapping[str, Any]], split: str, events: int, lost: int) -> Time:
    """What the recordings of a split hold."""
    cases = [case for truth in truths for case in truth["cases"] if case["split"] == split]
    ordinary = [(c["began_ns"], c["ended_ns"]) for c in cases if c["kind"] is None]
    mine = [truth for truth in truths if any(case["split"] == split for case in truth["cases"])]
    return Time(
        sum(truth["ended_ns"] - truth["began_ns"] for truth in mine) / 1e9,
        seconds_of(ordinary),
        sum(end - begin for begin, end in ordinary) / 1e9,
        len(ordinary),
        sum(not case["happened"] for case in cases if case["kind"] is not None),
        sum(truth["agent"].get("cpu_s", 0.0) for truth in mine),
        max((int(truth["agent"].get("max_rss_bytes", 0)) for truth in mine), default=0),
        events, lost,
    )  # fmt: skip


def score(judged: Sequence[Judged], time: Time, split: str) -> dict[str, Any]:
    """All figures of one file of rules on one split, ready for JSON."""
    outcomes = [o for each in judged for o in each.outcomes if o.split == split]
    wrong = [w for each in judged for w in each.wrong if w.split == split]
    unknown = [w for each in judged for w in each.unknown if w.split == split]
    days = time.ordinary_s / 86_400
    false = [w for w in wrong if w.on in {"ordinary", "agent"}]
    leaks = [o for o in outcomes if o.leak]
    leads = [o.lead_s for o in leaks if o.lead_s is not None]
    warned = sum(lead >= LEAD_S for lead in leads)
    return {
        "split": split,
        "classes": {kind: _class(kind, outcomes, wrong) for kind in CLASSES},
        "leaks": {
            "n": len(leaks), "warned": warned, "interval": wilson(warned, len(leaks)),
            "lead_median_s": percentile(leads, 0.5), "lead_p10_s": percentile(leads, 0.1),
        },
        "false_alerts": {
            "alerts": sum(w.alerts for w in false), "incidents": len(false),
            "hours": time.ordinary_s / 3600,
            "per_day": len(false) / days if days else None,
            "per_day_bound": poisson_bound(len(false)) / days if days else None,
        },
        "about_others": {
            "incidents": len(unknown), "hours": time.recorded_s / 3600,
        },
        "time": attrs.asdict(time),
        "missed": [attrs.asdict(o) for o in outcomes if o.detected_s is None],
        "wrong_offender": [
            attrs.asdict(o) for o in outcomes if o.detected_s is not None and not o.offender
        ],
        "late_leaks": [attrs.asdict(o) for o in leaks if (o.lead_s or 0) < LEAD_S],
        "wrong": [attrs.asdict(w) for w in wrong],
        "unknown": [attrs.asdict(w) for w in unknown],
    }  # fmt: skip


def _class(kind: str, outcomes: Sequence[Outcome], wrong: Sequence[Wrong]) -> dict[str, Any]:
    mine = [o for o in outcomes if o.kind == kind]
    told = [o for o in mine if o.detected_s is not None]
    false = sum(w.kind == kind for w in wrong)
    times = [o.detected_s for o in told if o.detected_s is not None and not o.leak]
    right = sum(o.offender for o in told)
    return {
        "n": len(mine), "told": len(told), "false": false,
        "recall": len(told) / len(mine) if mine else None,
        "recall_interval": wilson(len(told), len(mine)),
        "precision": len(told) / (len(told) + false) if told or false else None,
        "precision_interval": wilson(len(told), len(told) + false),
        "median_s": percentile(times, 0.5), "p95_s": percentile(times, 0.95),
        "offender": right, "offender_interval": wilson(right, len(told)),
        "more_alerts": sum(o.more_alerts for o in told),
        "more_incidents": sum(o.more_incidents for o in told),
    }  # fmt: skip


def printed(scores: Mapping[str, Mapping[str, Any]], *, details: bool = False) -> str:
    """A table for each split; ``scores`` by the name of the rules."""
    lines = []
    for name, figures in scores.items():
        time = figures["time"]
        lines.append(
            f"{name}, {figures['split']}: {time['recorded_s'] / 3600:.2f} h recorded, "
            f"{time['ordinary_cases']} cases of ordinary work in "
            f"{time['ordinary_s'] / 3600:.2f} h, "
            f"{time['void']} incidents that did not come about"
        )
        lines.append(
            f"  {'class':16} {'n':>3} {'recall':>22} {'precision':>22} {'median':>7} {'p95':>7} "
            f"{'offender':>9} {'alerts':>7} {'incidents':>9}"
        )
        for kind, each in figures["classes"].items():
            lines.append(
                f"  {kind:16} {each['n']:3} {_share(each, 'recall')} {_share(each, 'precision')} "
                f"{_seconds(each['median_s'])} {_seconds(each['p95_s'])} "
                f"{each['offender']:>4}/{each['told']:<4} {_per(each, 'more_alerts')} "
                f"{_per(each, 'more_incidents'):>9}"
            )
        leaks, false = figures["leaks"], figures["false_alerts"]
        low, high = leaks["interval"]
        lines.append(
            f"  leaks told {LEAD_S:.0f} s before the limit: {leaks['warned']} of {leaks['n']} "
            f"[{low:.2f}, {high:.2f}]; median {_seconds(leaks['lead_median_s']).strip()} before, "
            f"a tenth less than {_seconds(leaks['lead_p10_s']).strip()}"
        )
        if false["per_day"] is not None:
            lines.append(
                f"  false incidents on ordinary work: {false['incidents']} "
                f"({false['alerts']} alerts) in "
                f"{false['hours']:.2f} h: {false['per_day']:.1f} a host-day, with 95 % at most "
                f"{false['per_day_bound']:.1f}"
            )
        lines.append(
            f"  about whatever else ran (nobody knows whether rightly): "
            f"{figures['about_others']['incidents']} in {figures['about_others']['hours']:.2f} h"
        )
        lines.append(
            f"  agent while recording: "
            f"{100 * time['agent_cpu_s'] / max(time['recorded_s'], 1):.1f} % "
            f"of a core, {time['agent_rss_bytes'] / 1e6:.0f} MB at most, {time['events']} events, "
            f"{time['lost']} lost"
        )
        if details:
            lines += _details(figures)
        lines.append("")
    return "\n".join(lines)


def _details(figures: Mapping[str, Any]) -> list[str]:
    lines = [
        f"    missed: {o['case']} ({o['kind']}, measure {o['measure']})" for o in figures["missed"]
    ]
    lines += [
        f"    told of {o['named']} in {o['case']} by {', '.join(o['rules'])}"
        for o in figures["wrong_offender"]
    ]
    lines += [
        f"    too late: {o['case']}, {o['lead_s']} s before by {o['rules']}"
        for o in figures["late_leaks"]
    ]
    for title in ("wrong", "unknown"):
        lines += [
            f"    {title}: {w['kind']} on {w['about']} ({w['on']}): {w['alerts']} by "
            f"{', '.join(w['rules'])}: {w['named']}: {w['said']}"
            for w in figures[title]
        ]
    return lines


def _share(each: Mapping[str, Any], what: str) -> str:
    share = each[what]
    if share is None:
        return f"{'-':>22}"
    low, high = each[f"{what}_interval"]
    return f"{share:>7.3f} [{low:.3f}, {high:.3f}]"


def _seconds(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:>5.1f} s"


def _per(each: Mapping[str, Any], what: str) -> str:
    """So many more per incident that was told."""
    return f"{each[what] / each['told']:>+7.2f}" if each["told"] else f"{'-':>7}"
