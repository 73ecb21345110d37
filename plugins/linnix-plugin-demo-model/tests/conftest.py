"""The recipe is no distribution: its folder is put where Python looks; and the examples."""

import sys
from pathlib import Path

import pytest

from linnix_plugin_insight.example import load_example

sys.path.insert(0, str(Path(__file__).parents[1]))

DATASETS = Path(__file__).parents[3] / "datasets"


def _read(path):
    return [load_example(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def examples():
    """Incidents that the model may know."""
    return _read(DATASETS / "examples" / "incidents.jsonl")


@pytest.fixture(scope="session")
def held_out():
    """Incidents that nothing is trained on."""
    return _read(DATASETS / "held-out" / "incidents.jsonl")


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """A configuration of its own, so that nothing of the user's is read."""
    path = tmp_path / "linnix.toml"
    path.write_text("")
    monkeypatch.setenv("LINNIX_CONFIG", str(path))
