"""Training: loss on the replies only, a checkpoint every five minutes.

    torchrun --nproc-per-node 2 -m training.train OUT_FOLDER b2.npz b3.npz --minutes 30 \\
        --validation v1.npz

One process for each core, each with batches of its own, whose gradients are averaged at each step.
Files are gone through in their order, again and again until the minutes are over; the first may
hold short prompts. With ``--confident`` the model learns to say how sure it is: its target is
then the probability that it gives the class itself, at the temperature that fits the validation.
"""

# ruff: noqa: T201 - a script, which prints

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor, distributed
from torch.nn import functional

from linnix_core import CLASSES
from training.corpus import Sample, load
from training.model import Config, Llama
from training.tokenizing import Tokenizer

__all__ = ["Batch", "batches", "class_probabilities", "load_checkpoint", "temperature"]

CHECKPOINT_S = 300.0
LOG_EVERY = 20
WARM_UP = 30

#: Weight of the class in the loss: one token of twenty, and the one that counts most.
CLASS_WEIGHT = 4.0

#: Places in a reply: its class, and the two digits of the confidence after it.
CLASS_AT, TENS_AT, UNITS_AT = 0, 1, 2


@attrs.frozen
class Batch:
    """Padded ids; where replies are predicted (``at``), and what there should be."""

    ids: Tensor
    at: Tensor
    targets: Tensor


def batches(found: Sequence[Sample], size: int, draw: random.Random, pad: int) -> Iterator[Batch]:
    """Once through, samples of about one length together."""
    order = list(range(len(found)))
    draw.shuffle(order)
    pool = size * 16
    groups: list[list[int]] = []
    for at in range(0, len(order), pool):
        near = sorted(order[at : at + pool], key=lambda i: len(found[i].prompt))
        groups += [near[n : n + size] for n in range(0, len(near), size)]
    draw.shuffle(groups)
    for group in groups:
        chosen = [found[i] for i in group]
        length = max(len(s.prompt) + len(s.reply) for s in chosen)
        places = max(len(s.reply) for s in chosen)
        ids = torch.full((len(chosen), length), pad)
        at = torch.zeros((len(chosen), places), dtype=torch.long)
        targets = torch.full((len(chosen), places), -100)
        for row, (prompt, reply) in enumerate(chosen):
            ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            at[row, : len(reply)] = torch.arange(len(reply)) + len(prompt) - 1
            targets[row, : len(reply)] = torch.tensor(reply)
        yield Batch(ids, at, targets)


class _Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (K. Jordan, 2024), for matrices."""

    def __init__(self, parameters: Sequence[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                momentum = state.setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                step = _orthogonal(p.grad.lerp(momentum, 0.95))
                p.mul_(1 - group["lr"] * 0.05)
                p.add_(step, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def _orthogonal(matrix: Tensor) -> Tensor:
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _digits(tokenizer: Tokenizer) -> Tensor:
    return torch.tensor([tokenizer.id_of(digit) for digit in "0123456789"])


def _classes(tokenizer: Tokenizer) -> Tensor:
    return torch.tensor([tokenizer.id_of(f'{{"class": "{c}", "confidence": ') for c in CLASSES])


@torch.no_grad()
def class_probabilities(
    model: Llama, batch: Batch, classes: Tensor, heat: float
) -> tuple[Tensor, Tensor]:
    """Logits of the classes at their temperature, and which is the true one."""
    at = batch.at[:, :1]
    logits = model(batch.ids, at)[:, 0][:, classes].float() / heat
    true = (batch.targets[:, CLASS_AT, None] == classes).int().argmax(1)
    return logits, true


def _sure(model: Llama, batch: Batch, classes: Tensor, digits: Tensor, heat: float) -> None:
    """Write into the batch how sure the model is of the true class, 10 to 99."""
    logits, true = class_probabilities(model, batch, classes, heat)
    share = logits.softmax(-1).gather(1, true[:, None])[:, 0]
    percent = (100 * share).round().clamp(10, 99).long()
    rows = torch.arange(len(percent))
    for place, digit in ((TENS_AT, percent // 10), (UNITS_AT, percent % 10)):
        batch.targets[rows, place] = digits[digit]
        batch.ids[rows, batch.at[rows, place] + 1] = digits[digit]


def temperature(model: Llama, found: Sequence[Batch], classes: Tensor) -> float:
    """The one at which the classes of these batches are told best."""
    told = [class_probabilities(model, batch, classes, 1.0) for batch in found]
    logits, true = torch.cat([a for a, _ in told]), torch.cat([b for _, b in told])
    heats = [0.5 * 1.1**n for n in range(30)]
    return min(heats, key=lambda heat: functional.cross_entropy(logits / heat, true).item())


def _loss(model: Llama, batch: Batch, *, confident: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch.ids, batch.at)
    each = functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), reduction="none"
    ).view_as(batch.targets)
    weights = torch.ones(each.shape[1])
    weights[CLASS_AT] = CLASS_WEIGHT
    if not confident:
        weights[TENS_AT] = weights[UNITS_AT] = 0.0
    counted = (batch.targets != -100) * weights
    return (each * counted).sum() / counted.sum()


@torch.no_grad()
def validated(
    model: Llama, found: Sequence[Batch], tokenizer: Tokenizer, *, confident: bool, heat: float
) -> dict[str, float]:
    """Shares that are right if all before it is: class, process, whole reply."""
    classes, digits = _classes(tokenizer), _digits(tokenizer)
    right = process = whole = total = 0
    surprise = off = 0.0
    for batch in found:
        if confident:
            _sure(model, batch, classes, digits, heat)
        logits = model(batch.ids, batch.at)
        counted = batch.targets != -100
        counted[:, [TENS_AT, UNITS_AT]] = False
        same = logits.argmax(-1) == batch.targets
        own, true = class_probabilities(model, batch, classes, 1.0)
        surprise += functional.cross_entropy(own, true, reduction="sum").item()
        right += int((own.argmax(-1) == true).sum())
        process += int(same[:, 4].sum())
        whole += int((same | ~counted).all(1).sum())
        off += float((logits.argmax(-1) != batch.targets)[:, TENS_AT].sum())
        total += len(batch.ids)
    return {
        "class": right / total, "process": process / total, "whole": whole / total,
        "class_loss": surprise / total, "tens_off": off / total,
    }  # fmt: skip


def load_checkpoint(path: Path, tokenizer: Tokenizer) -> Llama:
    """The model of a checkpoint."""
    saved = torch.load(path, weights_only=True)
    model = Llama(Config(**saved["config"]), tokenizer.shared())
    model.load_state_dict(saved["model"])
    return model


def main() -> None:
    """Train for some minutes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--begin", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--confident", action="store_true")
    parser.add_argument("--heat", type=float, help="the temperature, if it was measured before")
    chosen = parser.parse_args()
    rank, several = int(os.environ.get("RANK", "0")), "WORLD_SIZE" in os.environ
    if several:
        distributed.init_process_group("gloo")
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(1)
    draw = random.Random(chosen.seed * 1000 + rank)  # noqa: S311 - reproducible
    tokenizer = Tokenizer()
    pad = tokenizer.id_of("<|pad|>")
    if chosen.begin:
        model = load_checkpoint(chosen.begin, tokenizer)
    else:
        model = Llama(Config(tokenizer.size), tokenizer.shared())
    chosen.out.mkdir(parents=True, exist_ok=True)
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    muon = _Muon(matrices, chosen.rate)
    adam = torch.optim.AdamW(rest, chosen.rate / 6, betas=(0.9, 0.97), weight_decay=0.0)
    checks = list(batches(load(chosen.validation), 32, random.Random(0), pad))  # noqa: S311
    classes, digits = _classes(tokenizer), _digits(tokenizer)
    heat = chosen.heat or 1.0
    if chosen.confident and chosen.heat is None:
        heat = temperature(model, checks, classes)
    began = time.monotonic()
    saved_at, losses, step, tokens = began, [], 0, 0
    seconds = chosen.minutes * 60

    def stream() -> Iterator[Batch]:
        for path in itertools.cycle(chosen.data):
            while not path.exists():
                time.sleep(1)
            yield from batches(load(path), chosen.batch, draw, pad)

    for batch in stream():
        step += 1
        done = (time.monotonic() - began) / seconds
        done = _shared_by_first(done) if several else done
        if done >= 1:
            break
        scale = min(step / WARM_UP, 1.0) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        muon.param_groups[0]["lr"] = chosen.rate * scale
        adam.param_groups[0]["lr"] = chosen.rate / 6 * scale
        if chosen.confident:
            _sure(model, batch, classes, digits, heat)
        loss = _loss(model, batch, confident=chosen.confident)
        muon.zero_grad()
        adam.zero_grad()
        loss.backward()
        if several:
            _average([*matrices, *rest])
        muon.step()
        adam.step()
        losses.append(loss.item())
        tokens += batch.ids.numel()
        now = time.monotonic()
        if step % LOG_EVERY == 0 and rank == 0:
            mean = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            speed = tokens / (now - began)
            print(f"{now - began:.0f} s, step {step}, loss {mean:.3f}, {speed:.0f}/s", flush=True)
        if now - saved_at >= CHECKPOINT_S and rank == 0:
            saved_at = now
            _save(model, chosen.out, tokenizer, checks, chosen.confident, heat, step)
    if rank == 0:
        _save(model, chosen.out, tokenizer, checks, chosen.confident, heat, step)


def _shared_by_first(value: float) -> float:
    """What the first process says, for all."""
    said = torch.tensor(value, dtype=torch.float64)
    distributed.broadcast(said, 0)
    return float(said)


def _average(parameters: Sequence[Tensor]) -> None:
    """Make the gradients of all processes the same, in one message."""
    found = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in found])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    at = 0
    for grad in found:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()


def _save(
    model: Llama, out: Path, tokenizer: Tokenizer, checks: Sequence[Batch], confident: bool,
    heat: float, step: int,
) -> None:  # fmt: skip
    torch.save(
        {"config": attrs.asdict(model.config), "model": model.state_dict(), "heat": heat},
        out / "checkpoint.pt",
    )
    shares = validated(model, checks, tokenizer, confident=confident, heat=heat)
    said = {name: round(share, 3) for name, share in shares.items()}
    print(json.dumps({"step": step, "heat": round(heat, 2), **said}), flush=True)


if __name__ == "__main__":
    main()
