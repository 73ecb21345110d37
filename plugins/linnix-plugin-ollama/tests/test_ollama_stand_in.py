"""The stand-in is as much like Ollama as Ollama's own client can tell."""

from pathlib import Path

import httpx
import ollama as client_of_ollama
import pytest

from linnix_plugin_ollama.testing import CHATML_JINJA

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["red"]}}, "required": ["a"]}


@pytest.fixture
def client(ollama):
    with client_of_ollama.Client(host=ollama.url, trust_env=False) as client:
        yield client


def test_its_client_hears_a_reply(ollama, client):
    reply = client.chat(
        "small",
        [{"role": "user", "content": "Name a colour."}],
        format=SCHEMA,
        think=False,
        options={"num_ctx": 2048},
        keep_alive="5m",
    )
    assert reply.message.content == '{"a": "red"}'
    assert (reply.done, reply.done_reason) == (True, "stop")
    assert (reply.prompt_eval_count, reply.eval_count) == (26, 12)
    (sent,) = ollama.chats
    # The keys that the plugin sends too; "truncate" is what it alone has.
    assert {"model", "messages", "stream", "format", "think", "options", "keep_alive"} <= set(sent)


def test_its_client_knows_the_errors(ollama, client):
    with pytest.raises(client_of_ollama.ResponseError, match="not found") as missing:
        client.chat("large")
    assert missing.value.status_code == 404
    with pytest.raises(client_of_ollama.ResponseError, match="does not exist"):
        list(client.pull("nobody-made-it", stream=True))


def test_its_client_sees_models_and_downloads(ollama, client):
    assert [model.model for model in client.list().models] == ["small:latest"]
    ollama.pulls.set()
    told = list(client.pull("large", stream=True))
    assert told[-1].status == "success"
    assert (840_000, 2_000_000) in [(each.completed, each.total) for each in told]


# --- what the deployer needs ----------------------------------------------------------


@pytest.fixture
def uploaded(client, make_spec):
    """The digest of a file that its client has brought there."""
    return client.create_blob(make_spec(template=CHATML_JINJA).path)


def test_its_client_makes_a_model_of_a_file(ollama, client, uploaded, make_spec):
    assert uploaded == make_spec(template=CHATML_JINJA).options["digest"]
    told = client.create(
        "oracle",
        files={"model.gguf": uploaded},
        system="You are brief.",
        parameters={"num_ctx": 2048},
        stream=True,
    )
    assert [each.status for each in told][-1] == "success"
    shown = client.show("oracle")
    assert uploaded.removeprefix("sha256:") in shown.modelfile
    assert "(chatml)" in shown.template
    assert "num_ctx" in shown.parameters
    assert shown.details.format == "gguf"
    assert {model.model for model in client.list().models} == {"small:latest", "oracle:latest"}


def test_its_client_loads_a_model_and_removes_it(client, uploaded):
    client.create("oracle", files={"model.gguf": uploaded})
    assert client.ps().models == []
    assert client.generate("oracle", options={"num_ctx": 2048}).done_reason == "load"
    assert [model.model for model in client.ps().models] == ["oracle:latest"]
    assert client.delete("oracle").status == "success"
    assert client.ps().models == []
    with pytest.raises(client_of_ollama.ResponseError, match="not found"):
        client.delete("oracle")
    with pytest.raises(client_of_ollama.ResponseError, match="not found"):
        client.show("oracle")


@pytest.mark.parametrize("stream", [False, True])
def test_its_client_hears_why_no_model_is_made(client, tmp_path, stream):
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    files = {"page.gguf": client.create_blob(path)}
    with pytest.raises(client_of_ollama.ResponseError, match="invalid file magic"):
        list(client.create("oracle", files=files, stream=stream))
    with pytest.raises(client_of_ollama.ResponseError, match="neither"):
        list(client.create("oracle", stream=stream))


def test_its_client_has_a_model_quantized(client, uploaded):
    files = {"model.gguf": uploaded}
    client.create("oracle", files=files, quantize="q4_k_m")
    assert client.show("oracle").details.quantization_level == "Q4_K_M"
    with pytest.raises(client_of_ollama.ResponseError, match="unsupported quantization"):
        client.create("oracle", files=files, quantize="q5_k_m")


def test_what_did_not_arrive_whole_is_refused(ollama, make_spec):
    spec = make_spec()
    answer = httpx.post(
        f"{ollama.url}/api/blobs/sha256:{'0' * 64}",
        content=Path(spec.path).read_bytes(),
        trust_env=False,
    )
    assert answer.status_code == 400
    assert "digest mismatch" in answer.json()["error"]
    assert not ollama.blob(f"sha256:{'0' * 64}").exists()
