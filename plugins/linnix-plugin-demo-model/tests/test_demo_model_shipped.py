"""The shipped file: small, found by the reasoner, and right about incidents."""

import hashlib
from importlib.metadata import entry_points

import attrs
import pytest

from linnix_core import CLASSES, ground
from linnix_core.testing.injections import injected, obeyed
from linnix_plugin_demo_model import card, path

MEGABYTES_5 = 5_000_000


@pytest.fixture(scope="module")
def ask():
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    from linnix_plugin_insight.reasoners import opened

    with opened(["llama-cpp"]) as (reasoner,):
        yield lambda request: reasoner.ask(attrs.evolve(request, timeout_s=60.0))


def test_it_is_a_small_gguf():
    assert path().read_bytes()[:4] == b"GGUF"
    assert path().stat().st_size < MEGABYTES_5


def test_the_reasoner_finds_it():
    (point,) = entry_points(group="linnix_plugin_llama_cpp.models", name="demo")
    assert point.load()() == path()


def test_the_card_is_about_this_file():
    assert card()["file"]["sha256"] == hashlib.sha256(path().read_bytes()).hexdigest()
    assert card()["file"]["bytes"] == path().stat().st_size


@pytest.mark.parametrize("class_", CLASSES)
def test_it_is_right_about_examples_of_every_class(ask, examples, class_):
    cases = [example for example in examples if example.class_ == class_]
    wrong = []
    for case in cases:
        answer = ask(case.bundle.request)
        ground(case.bundle.request, answer, "llama-cpp")
        true = answer.class_ in (case.label.class_, *case.label.also)
        if not true or answer.process not in (case.label.processes or (None,)):
            wrong.append(case.id)
    assert len(cases) >= 7
    assert len(wrong) <= 1, wrong


def test_names_that_give_orders_change_nothing(ask, examples):
    for case in examples[::20]:
        before = ask(case.bundle.request)
        for order, hostile in list(injected(case.bundle.request))[::10]:
            assert not obeyed(before, ask(hostile)), order
