"""Chats, reasoners and deployers in front of a stand-in for Ollama."""

import contextlib
import hashlib
import socket
import struct
import time

import pytest

from linnix_core import ModelSpec
from linnix_plugin_ollama import (
    OllamaChat,
    OllamaConfig,
    OllamaDeployer,
    OllamaDeployerConfig,
    OllamaReasoner,
    Server,
)
from linnix_plugin_ollama.testing import FakeOllama
from linnix_plugin_openai import Exchange


@pytest.fixture
def ollama():
    fake = FakeOllama()
    yield fake
    fake.close()


@pytest.fixture
def dead_url():
    """The address of a port that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Nothing of whoever runs the tests."""
    for name in ("OLLAMA_HOST", "LLM_MODEL", "HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_chat(ollama):
    """Build an `OllamaChat`, and close it at the end."""
    with contextlib.ExitStack() as cleanup:

        def make(model="small", **keys):
            chat = OllamaChat(Server(Exchange(ollama.url), ollama.url), model, **keys)
            cleanup.callback(chat.close)
            return chat

        yield make


@pytest.fixture
def make_reasoner(linnix_context, ollama):
    """Build a reasoner from keys, and stop it at the end."""
    made = []

    def make(context=None, **keys):
        if "deployment" not in keys:
            keys = {"host": ollama.url, "model": "small", **keys}
        context = context or linnix_context("reasoners.ollama")
        reasoner = OllamaReasoner(OllamaConfig(**keys), context)
        made.append(reasoner)
        return reasoner

    yield make
    for reasoner in made:
        reasoner.linnix_stop(deadline=time.monotonic() + 60)


@pytest.fixture
def make_deployer(linnix_context, ollama):
    """Build a deployer from keys, and stop it at the end."""
    made = []

    def make(**keys):
        config = OllamaDeployerConfig(**{"host": ollama.url, **keys})
        deployer = OllamaDeployer(config, linnix_context("deployers.ollama"))
        made.append(deployer)
        return deployer

    yield make
    for deployer in made:
        deployer.linnix_stop(deadline=time.monotonic() + 60)


@pytest.fixture
def make_spec(tmp_path):
    """Make what a command hands to the deployer.

    ``template`` is the Jinja that the file brings, ``filler`` makes it larger; what else is
    named is an option.
    """

    def text(value):
        return struct.pack("<Q", len(value)) + value

    def make(name="oracle", *, template=None, filler=b"", quantization=None, **options):
        pairs = [(b"general.architecture", b"llama")]
        if template is not None:
            pairs.append((b"tokenizer.chat_template", template.encode()))
        path = tmp_path / "oracle.gguf"
        path.write_bytes(
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, len(pairs))
            + b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs)
            + filler
        )
        known = {
            "model_id": name,
            "base_model": "Qwen/Qwen2.5-1.5B",
            "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        }
        return ModelSpec(name, str(path), quantization=quantization, options={**known, **options})

    return make
