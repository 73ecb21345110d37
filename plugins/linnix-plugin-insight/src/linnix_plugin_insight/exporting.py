"""Examples become files of chats: looked at once to be split, and once to be written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from linnix_plugin_insight.chat import NotAsked, chat_of
from linnix_plugin_insight.example import Example
from linnix_plugin_insight.files import lines_of, writing
from linnix_plugin_insight.splitting import SPLITS, Entry, Split, assign, entry_of, leaks

__all__ = ["Export"]

#: How many of what was left out are told.
MAX_TOLD = 1000


class Export:
    """One export: `take` every example, `split`, then `write` them again."""

    def __init__(self, *, narrow: bool = False, unlabelled: bool = False) -> None:
        self._narrow = narrow
        self._unlabelled = unlabelled
        self.entries: list[Entry] = []
        #: Where something is that is left out, and why.
        self.left_out: list[tuple[str, str]] = []
        self._places: dict[str, int] = {}
        self._targets: dict[bytes, bytes] = {}
        self._splits: list[Split] = []
        self._groups: dict[str, int] = {}
        self._counts: Counter[str] = Counter()

    def take(self, place: str, example: Example) -> None:
        """Look at an example that is at this place; it is left out if it was there already."""
        if example.label is None and not self._unlabelled:
            self._leave_out("left_out", place, "nobody has said what is true of it")
            return
        if not example.agrees:
            self._leave_out("left_out", place, "its answer is not what its label says")
            return
        try:
            _, prompt, reply = chat_of(example, narrow=self._narrow)
        except NotAsked as error:
            self._leave_out("left_out", place, str(error))
            return
        entry = entry_of(example, prompt["content"], reply["content"])
        known = self._targets.get(entry.content)
        if known is None:
            self._targets[entry.content] = entry.target
            self._places[place] = len(self.entries)
            self.entries.append(entry)
        elif known == entry.target:
            self._leave_out("duplicates", place, "the same prompt is there already")
        else:
            self._leave_out("contradictions", place, "the same prompt has another reply")

    def _leave_out(self, kind: str, place: str, why: str) -> None:
        self._counts[kind] += 1
        if len(self.left_out) < MAX_TOLD:
            self.left_out.append((place, why))

    def split(self, shares: Mapping[Split, float], seed: int) -> None:
        """Decide where everything goes that was taken."""
        self._splits, self._groups = assign(self.entries, shares, seed)

    def write(self, folder: Path, examples: Iterable[tuple[str, Example]]) -> dict[str, Any]:
        """Write those that were taken, which come again, and a report, which is returned."""
        classes: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        members: dict[str, list[str]] = {split: [] for split in SPLITS}
        with ExitStack() as stack:
            out = {s: stack.enter_context(writing(folder / f"{s}.jsonl")) for s in SPLITS}
            for place, example in examples:
                number = self._places.get(place)
                if number is None:
                    continue
                split = self._splits[number]
                chat = chat_of(example, narrow=self._narrow)
                out[split].write(json.dumps({"messages": chat}) + "\n")
                classes[split][example.class_] += 1
                members[split].append(example.id)
        report: dict[str, Any] = {
            "splits": {
                split: {
                    "examples": len(members[split]),
                    "classes": dict(sorted(classes[split].items())),
                    "ids": members[split],
                }
                for split in SPLITS
            },
            "groups": self._groups,
            **{key: self._counts[key] for key in ("duplicates", "contradictions", "left_out")},
            "leaks": [str(leak) for leak in leaks(_prompts(folder))],
        }
        with writing(folder / "splits.json") as file:
            file.write(json.dumps(report, indent=1) + "\n")
        return report


def _prompts(folder: Path) -> Iterator[tuple[str, int, str]]:
    for split in SPLITS:
        for line in lines_of(folder / f"{split}.jsonl"):
            yield split, line.number, json.loads(line.data or b"")["messages"][1]["content"]
