"""Which example goes into which split, so that no split knows what another one asks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from linnix_plugin_insight.chat import gist, text_hash
from linnix_plugin_insight.example import Example

__all__ = ["SPLITS", "Entry", "Leak", "Split", "assign", "entry_of", "leaks"]

Split: TypeAlias = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@attrs.frozen
class Entry:
    """What is remembered of an example: enough to split by, and a hundredth of its size."""

    class_: str
    #: What it has in common with its kin: any of these.
    kin: tuple[bytes, ...]
    content: bytes
    target: bytes
    held_out: bool


def entry_of(example: Example, prompt: str, reply: str) -> Entry:
    """The entry of an example whose chat has this prompt and this reply.

    Its kin have the same family, or a prompt that differs in numbers only, and without a
    family, the same class and program.
    """
    subject = example.bundle.request.incident.subject
    program = (subject.exe or subject.comm).rpartition("/")[2]
    family = example.family or f"{example.class_} {program}"
    return Entry(
        class_=example.class_,
        kin=(text_hash(f"family {family}"), text_hash(f"gist {gist(prompt)}")),
        content=text_hash(prompt),
        target=text_hash(reply),
        held_out=example.held_out,
    )


def assign(
    entries: Sequence[Entry], shares: Mapping[Split, float], seed: int = 0
) -> tuple[list[Split], dict[str, int]]:
    """A split for each entry, and how many groups of kin there are of each class.

    Kin stay together, and what is held out, with its kin, is for the test. Of each class every
    split gets about its share, as far as there are groups enough. The order of the entries
    makes no difference, only which there are.
    """
    groups = _groups(entries)
    by_class: dict[str, list[tuple[bytes, list[int]]]] = defaultdict(list)
    chosen: dict[int, Split] = {}
    for members in groups:
        class_ = Counter(entries[n].class_ for n in members).most_common(1)[0][0]
        if any(entries[n].held_out for n in members):
            chosen.update(dict.fromkeys(members, "test"))
        name = min(kin for n in members for kin in entries[n].kin)
        rank = hashlib.blake2b(name, key=str(seed).encode(), digest_size=8).digest()
        by_class[class_].append((rank, members))
    for ranked in by_class.values():
        # The large ones first: the small ones fill what is left of the small shares.
        free = sorted(
            (-len(members), rank, members) for rank, members in ranked if members[0] not in chosen
        )
        total = sum(len(members) for *_, members in free)
        missing = {split: shares[split] * total for split in SPLITS}
        rest = shares["train"] + shares["valid"]
        if rest and any(members[0] in chosen for _, members in ranked):
            # The test of this class is what is held out.
            missing = {split: shares[split] / rest * total for split in SPLITS}
            missing["test"] = 0.0
        for *_, members in free:
            split = max(SPLITS, key=lambda split: missing[split])
            missing[split] -= len(members)
            chosen.update(dict.fromkeys(members, split))
    counts = {class_: len(ranked) for class_, ranked in sorted(by_class.items())}
    return [chosen[n] for n in range(len(entries))], counts


def _groups(entries: Sequence[Entry]) -> Iterable[list[int]]:
    """The numbers of the entries that are kin, also by way of others."""
    first: dict[bytes, int] = {}
    parent = list(range(len(entries)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for n, entry in enumerate(entries):
        for kin in entry.kin:
            parent[root(n)] = root(first.setdefault(kin, n))
    groups: dict[int, list[int]] = defaultdict(list)
    for n in range(len(entries)):
        groups[root(n)].append(n)
    return groups.values()


@attrs.frozen
class Leak:
    """A prompt of one split that is in another, word for word or but for its numbers."""

    kind: Literal["same", "alike"]
    line: int
    split: str
    other_line: int
    other: str

    def __str__(self) -> str:
        said = "the same as" if self.kind == "same" else "but for numbers the same as"
        return f"{self.split}:{self.line} is {said} {self.other}:{self.other_line}"


def leaks(prompts: Iterable[tuple[str, int, str]]) -> Iterable[Leak]:
    """Every prompt that an earlier split has too; of each comes its split, its line, its text."""
    seen: dict[bytes, tuple[str, int]] = {}
    alike: dict[bytes, tuple[str, int]] = {}
    for split, line, text in prompts:
        same, like = text_hash(text), text_hash(gist(text))
        if (found := seen.setdefault(same, (split, line)))[0] != split:
            yield Leak("same", line, split, found[1], found[0])
        elif (found := alike.setdefault(like, (split, line)))[0] != split:
            yield Leak("alike", line, split, found[1], found[0])
