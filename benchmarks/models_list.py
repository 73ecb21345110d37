"""How long ``linnix models list --json`` takes with 10,000 registered models, from start to exit.

Beside it: an interpreter that reads and writes the same file with ``json``, which is the least
that a tool in plain Python would do; ``linnix models list --json --role``, which looks at every
model; and the same file as the tools before wrote it, indented. Bytecode is compiled beforehand,
as an installation does it. ``cpu_of_json`` is the CPU beside that of ``json`` in the same run,
which says more than seconds on a busy machine.

    python benchmarks/models_list.py [--models 10000] [--runs 10]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from linnix_plugin_models import Model, ModelRegistry
from linnix_plugin_models.registry import Artifact, ModelFile

PEER = """
import json, sys
with open(sys.argv[1]) as file:
    models = json.load(file)["models"]
json.dump({"models": list(models.values()), "total": len(models)}, sys.stdout, indent=2)
"""


def make(path: Path, models: int) -> None:
    registry = ModelRegistry(path)
    registry.register(
        "oracle-0",
        display_name="Oracle: Farore Secrets",
        base_model="Qwen/Qwen2.5-Coder-1.5B",
        role="asm",
        location="linux",
        path="/models/oracle-0",
        tags=["gold"],
        dataset_quality={"acceptance_rate": 0.867},
        hyperparameters={"learning_rate": 2e-4, "num_epochs": 3},
        artifacts=[
            Artifact(
                location="linux",
                path="/models/oracle-0",
                format="safetensors",
                files=tuple(ModelFile(f"model-{n}.safetensors", 10**9, "0" * 64) for n in range(4)),
            )
        ],
    )
    oracle = registry.get("oracle-0")
    roles = ("asm", "debug", "general")
    registry.change(
        None,
        lambda held: held.update(
            (name, Model({**oracle.flat, "model_id": name, "role": roles[n % 3]}, oracle.more))
            for n, name in enumerate(f"oracle-{n}" for n in range(models))
        ),
    )


def run(command: list[str], runs: int, bytecode: str) -> tuple[list[float], list[float]]:
    """Wall clock and CPU seconds of each run."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    wall, cpu = [], []
    for _ in range(runs):
        before = os.times()
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
        wall.append(time.perf_counter() - began)
        after = os.times()
        cpu.append(
            after.children_user + after.children_system
            - before.children_user - before.children_system
        )  # fmt: skip
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "registry.json"
        make(path, options.models)
        indented = Path(name) / "indented.json"
        indented.write_text(json.dumps(json.loads(path.read_text()), indent=2))
        models = [sys.executable, "-m", "linnix_core", "models"]
        linnix = [*models, "--registry", str(path), "list", "--json"]
        commands = {
            "json": [sys.executable, "-c", PEER, str(path)],
            "python": [sys.executable, "-c", "pass"],
            "version": [sys.executable, "-m", "linnix_core", "--version"],
            "start": [*models, "--help"],
            "list": linnix,
            "list_role": [*linnix, "--role", "asm"],
            "list_indented": [*models, "--registry", str(indented), "list", "--json"],
        }
        peer = 0.0
        for what, command in commands.items():
            wall, cpu = run(command, options.runs, f"{name}/bytecode")
            peer = peer or statistics.median(cpu)
            print(
                json.dumps(
                    {
                        "benchmark": f"models_list/{what}",
                        "models": options.models,
                        "file_mb": round(path.stat().st_size / 1e6, 1),
                        "wall_s_best": round(min(wall), 3),
                        "wall_s_median": round(statistics.median(wall), 3),
                        "cpu_s_best": round(min(cpu), 3),
                        "cpu_s_median": round(statistics.median(cpu), 3),
                        "cpu_of_json": round(statistics.median(cpu) / peer, 3),
                    }
                )
            )


if __name__ == "__main__":
    main()
