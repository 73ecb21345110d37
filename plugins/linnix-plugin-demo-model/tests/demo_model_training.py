"""The whole recipe in some minutes: every step takes what the one before it made.

It needs PyTorch and is no part of the suite: ``nox -s demo-model`` runs it.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(1200)


def test_a_quick_run_makes_a_model_that_runs_and_its_card(tmp_path):
    command = [sys.executable, "-m", "training", str(tmp_path), "--quick"]
    subprocess.run(command, check=True, cwd=ROOT)
    model = tmp_path / "huggingface" / "linnix-demo-q8_0.gguf"
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["file"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (tmp_path / "huggingface" / "model.safetensors").stat().st_size > 1_000_000
    scores = card["scores"]["llama-cpp"]
    assert set(scores) >= {"held-out", "examples"}
    for score in scores.values():
        # What it says is of no use yet; that it says something is the grammar's doing.
        assert score["cases"] >= 4
        assert (score["failed"], score["grounded"]) == (0, 1.0)
