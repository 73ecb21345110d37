"""The whole recipe: data, training in two parts, export, card.

    python -m training OUT_FOLDER --recordings /var/tmp/linnix-evaluation
    python -m training OUT_FOLDER --quick

Runs from the root of a checkout with the plugin's folder on PYTHONPATH, and takes about an hour
and a quarter on two cores; with ``--quick`` some minutes on one, for a model of no use, to see
that every step takes what the one before it made. The second part of the training has prompts of
every length, and teaches the model to say how sure it is. Nothing is put into the plugin:
OUT_FOLDER has ``huggingface/linnix-demo-q8_0.gguf`` and ``card.json``, which are copied to ``src``
after somebody has looked.
"""

# ruff: noqa: S603 - this interpreter and modules of this folder

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from training.export import NAME

EXAMPLES = Path("datasets/examples/incidents.jsonl")

#: Of a quick run: the part of the samples that is made, minutes of training, and about how many
#: incidents of each set the model is asked.
QUICK_PART, QUICK_MINUTES, QUICK_CASES = 100, 1.5, 4

#: Files of the corpus: name, seed, samples, how many other processes at most, the share that is
#: asked as the agent asks by default, and of which families. The first have short prompts; when
#: the last is trained on, the validation has said how sure the model may be.
CORPUS = (
    ("short", 21, 4000, 4, 0.9, "training"),
    ("medium", 22, 12000, 6, 0.8, "training"),
    ("long", 23, 12000, 11, 0.6, "all"),
)


def run(module: str, *words: object, out: Path | None = None) -> None:
    """One step; its standard output goes to ``out``."""
    command = [sys.executable, "-m", *module.split(), *map(str, words)]
    if out is None:
        subprocess.run(command, check=True)
        return
    with out.open("w") as file:
        subprocess.run(command, check=True, stdout=file)


def main() -> None:
    """Every step, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--recordings", type=Path, help="of `python -m evaluation record`")
    parser.add_argument("--minutes", type=float, help="of training, in all; 45 if not said")
    parser.add_argument("--processes", type=int, help="that train; 2 if not said")
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything")
    chosen = parser.parse_args()
    part = QUICK_PART if chosen.quick else 1
    minutes = chosen.minutes or (QUICK_MINUTES if chosen.quick else 45.0)
    processes = chosen.processes or (1 if chosen.quick else 2)
    out: Path = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    recorded = EXAMPLES
    if chosen.recordings:
        recorded = out / "recorded.jsonl"
        run("training.recorded", chosen.recordings, out=recorded)
    check = out / "validation.npz"
    run(
        "training.corpus", check, "--seed", 900001, "--count", max(400 // part, 32),
        "--made-up", 0, "--usual", 1, "--families", "validation", "--recorded", recorded,
    )  # fmt: skip
    for name, seed, count, others, usual, families in CORPUS:
        run(
            "training.corpus", out / f"{name}.npz", "--seed", seed, "--count", count // part,
            "--others", others, "--usual", usual, "--families", families,
            "--recorded", recorded,
        )  # fmt: skip
    parallel = f"torch.distributed.run --standalone --nproc-per-node {processes}"
    short, medium, long = (out / f"{name}.npz" for name, *_ in CORPUS)
    run(
        f"{parallel} -m training.train", out / "first", short, medium, "--validation", check,
        "--minutes", minutes * 2 / 3,
    )  # fmt: skip
    run(
        f"{parallel} -m training.train", out / "second", long, "--validation", check,
        "--minutes", minutes / 3, "--begin", out / "first" / "checkpoint.pt",
        "--rate", 0.008, "--confident",
    )  # fmt: skip
    run("training.export", out / "second" / "checkpoint.pt", out / "huggingface")
    made = out / "huggingface" / f"{NAME}-q8_0.gguf"
    about = out / "about.json"
    about.write_text(json.dumps({"file": file_facts(made)}))
    few = ("--attacks", 1, "--cases", QUICK_CASES) if chosen.quick else ()
    run("training.card", "--about", about, "--model", made, *few, out=out / "card.json")


def file_facts(model: Path) -> dict[str, object]:
    """What tells this file from every other."""
    data = model.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "quantization": "Q8_0"}


if __name__ == "__main__":
    main()
