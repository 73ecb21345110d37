"""Tiny checkpoints, and conversions as ``linnix models convert`` asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from linnix_plugin_gguf import convert, tools
from linnix_plugin_gguf.native import answer_to
from linnix_plugin_gguf.testing import tiny_checkpoint
from linnix_plugin_models import ConversionRequest


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A Llama checkpoint that nobody changes."""
    return tiny_checkpoint(tmp_path_factory.mktemp("llama") / "tiny-llama")


@pytest.fixture
def in_this_process(monkeypatch):
    """llama.cpp here, and not in a process for each question: where the file is what is tested."""
    monkeypatch.setattr(tools, "_ask", lambda question, trouble, steps=None: answer_to(question))


@pytest.fixture
def checkpoint(tmp_path):
    """Make a checkpoint; ``edit`` changes its config.json or another of its files."""

    def make(family="llama", edit=None, name="checkpoint", **options) -> Path:
        path = tiny_checkpoint(tmp_path / name, family, **options)
        for file, change in (edit or {}).items():
            tree = json.loads((path / file).read_text())
            change(tree)
            (path / file).write_text(json.dumps(tree))
        return path

    return make


@pytest.fixture
def converted(tmp_path):
    """Convert, and say what came of it."""
    number = iter(range(100))

    def run(source: Path, quantization: str = "F16", **more: object) -> SimpleNamespace:
        place = tmp_path / f"made-{next(number)}"
        (place / "work").mkdir(parents=True)
        steps: list[tuple[str, int, int | None]] = []
        request = ConversionRequest(
            model_id="tiny",
            source=source,
            target=place / "tiny.gguf",
            work=place / "work",
            quantization=quantization,
            progress=lambda *step: steps.append(step),
            **more,
        )
        run.place = place
        made = convert(request)
        assert list(request.work.iterdir()) == [], "intermediates are left"
        return SimpleNamespace(path=request.target, steps=steps, details=made.details, made=made)

    return run
