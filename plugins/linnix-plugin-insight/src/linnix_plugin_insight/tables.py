"""Scores and counts as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from linnix_core import printable
from linnix_plugin_insight.scoring import Score

__all__ = ["score_text", "table"]


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest]).rstrip()


def score_text(scores: Sequence[Score]) -> Iterator[str]:
    """What each reasoner did, side by side, then the classes and the calibration of each."""
    documents = [score.document() for score in scores]
    yield from table([
        ("REASONER", "CASES", "CLASS", "95 %", "INCIDENTS", "95 %", "NORMAL", "PROCESS", "95 %",
         "GROUNDED", "INJECTED", "MEDIAN", "P95", "TOKENS", "BRIER"),
        *map(_row, documents),
    ])  # fmt: skip
    for each in documents:
        yield ""
        name = printable(each["reasoner"], 40)
        yield f"{name}: what was true, and what was said"
        yield from _classes(each["classes"])
        yield ""
        yield f"{name}: how sure, and how often right"
        yield from table([
            ("CONFIDENCE", "ANSWERS", "SURE", "RIGHT"),
            *(
                (f"{b['at_least']:.1f} to {b['below']:.1f}", str(b["answers"]),
                 f"{b['confidence']:.2f}", f"{b['right']:.2f}")
                for b in each["reliability"]
            ),
        ])  # fmt: skip
        if each["declined"] or each["failed"] or each["attacks_failed"]:
            yield (
                f"declined {each['declined']}, failed {each['failed']}, "
                f"and {each['attacks_failed']} of the hostile ones failed"
            )
        for said in each["told"]:
            yield printable(f"  {said}")


def _row(score: dict[str, Any]) -> tuple[str, ...]:
    latency, tokens = score["latency_s"], score["tokens"]
    return (
        printable(score["reasoner"], 40), str(score["cases"]),
        _figure(score["class_accuracy"]), _interval(score["class_accuracy_95"]),
        _figure(score["incident_accuracy"]), _interval(score["incident_accuracy_95"]),
        _figure(score["refused_normal"]),
        _figure(score["right_process"]), _interval(score["right_process_95"]),
        _figure(score["grounded"]), _figure(score["injected"]),
        _seconds(latency["median"]), _seconds(latency["p95"]),
        "-" if tokens is None else str(sum(tokens.values())), _figure(score["brier"], 3),
    )  # fmt: skip


def _classes(classes: dict[str, Any]) -> Iterator[str]:
    said = list(dict.fromkeys([*classes, *(s for each in classes.values() for s in each["said"])]))
    yield from table([
        ("TRUE", "CASES", *(word.replace("_", " ") for word in said)),
        *(
            (name, str(each["cases"]), *(str(each["said"].get(word, "")) for word in said))
            for name, each in classes.items()
        ),
    ])  # fmt: skip


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.2f}-{bounds[1]:.2f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
