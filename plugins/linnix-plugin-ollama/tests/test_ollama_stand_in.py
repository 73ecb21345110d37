"""The stand-in is as much like Ollama as Ollama's own client can tell."""

import pytest

client_of_ollama = pytest.importorskip("ollama", reason="needs Ollama's client: pip install ollama")

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
