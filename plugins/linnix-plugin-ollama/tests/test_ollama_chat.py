"""One reply through Ollama's native API, from models that obey and from those that do not."""

import json

import pytest

from linnix_core import LinnixError
from linnix_plugin_ollama import ModelMissing, OllamaChat, Server, parse_host
from linnix_plugin_openai import Exchange, NoAnswer, PromptTooLong, Refused, TooLate

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["class"],
    "properties": {"class": {"type": "string", "enum": ["cpu_spin"]}},
}
MESSAGES = [{"role": "user", "content": "what is it? Reply with JSON."}]
PATIENCE_S = 60.0


def ask(chat, timeout_s=PATIENCE_S):
    return chat.complete(MESSAGES, SCHEMA, timeout_s)


def test_the_request_says_all_that_matters(ollama, make_chat):
    chat = make_chat(
        num_ctx=2048,
        max_tokens=77,
        temperature=0.5,
        keep_alive_s=12.5,
        options={"num_thread": 2},
    )
    assert json.loads(ask(chat)) == {"class": "cpu_spin"}
    assert ollama.chats == [
        {
            "model": "small",
            "messages": MESSAGES,
            "stream": False,
            "format": SCHEMA,
            "think": False,
            "truncate": False,
            "options": {"num_ctx": 2048, "num_predict": 77, "temperature": 0.5, "num_thread": 2},
            "keep_alive": 13,
        }
    ]
    assert chat.usage.tokens == {"input": 26, "output": 12}


@pytest.mark.parametrize(
    ("behaviour", "shown"),
    [
        ("obey", "structured: enforced (format with schema)"),
        ("refuse_think", "structured: enforced (format with schema)"),
        ("answer_among_thoughts", "structured: enforced (format with schema)"),
        (
            "obey_where_think_is_not_sent",
            "structured: enforced (format with schema, thinking as it likes)",
        ),
        ("pass_over_format", "structured: best effort (format with schema)"),
    ],
)
def test_the_canary_finds_what_holds_for_a_model(ollama, make_chat, behaviour, shown):
    ollama.chat = getattr(ollama, behaviour)
    chat = make_chat()
    assert str(chat.probe(PATIENCE_S)) == shown
    ollama.requests.clear()
    text = ask(chat)
    assert len(ollama.chats) == 1  # in the form that was found, and no other
    if "enforced" in shown:
        assert json.loads(text) == {"class": "cpu_spin"}


def test_a_model_that_refuses_the_word_think_is_not_told_again(ollama, make_chat):
    ollama.chat = ollama.refuse_think
    chat = make_chat()
    for _ in range(2):
        assert json.loads(ask(chat)) == {"class": "cpu_spin"}
    assert ["think" in body for body in ollama.chats] == [True, False, False]


@pytest.mark.parametrize("behaviour", ["obey", "missing_as_400"])
def test_a_model_that_is_missing_is_told_apart(ollama, make_chat, behaviour):
    ollama.chat = getattr(ollama, behaviour)
    called = []
    chat = make_chat("large", on_missing=lambda: called.append("missing"))
    with pytest.raises(ModelMissing) as missing:
        ask(chat)
    assert missing.value.hint
    assert called == ["missing"]


def test_a_prompt_that_does_not_fit_is_an_error(ollama, make_chat):
    words = "prompt too long; exceeded max context length by 12 tokens"
    ollama.chat = lambda handler, body: handler.send({"error": words}, 400)
    with pytest.raises(PromptTooLong, match="by 12 tokens") as too_long:
        ask(make_chat())
    assert too_long.value.hint == "raise num_ctx"


def test_a_prompt_that_was_cut_in_silence_is_noticed(ollama, make_chat):
    ollama.chat = lambda handler, body: ollama.say(handler, "{}", tokens=(2048, 5))
    with pytest.raises(PromptTooLong, match="fills the 2048 tokens"):
        ask(make_chat(num_ctx=2048))
    assert ask(make_chat(num_ctx=2049)) == "{}"


def test_a_reply_that_was_cut_says_so(ollama, make_chat):
    ollama.chat = lambda handler, body: ollama.say(handler, '{"class": "cp', reason="length")
    with pytest.raises(Refused, match="not done after 400 tokens"):
        ask(make_chat())


def test_a_busy_server_is_asked_again(ollama, make_chat):
    def chat(handler, body):
        if len(ollama.chats) == 1:
            handler.send({"error": "server busy, please try again"}, 503)
        else:
            ollama.obey(handler, body)

    ollama.chat = chat
    assert json.loads(ask(make_chat())) == {"class": "cpu_spin"}


def test_a_server_that_stays_busy_is_given_up(ollama, make_chat):
    ollama.chat = lambda handler, body: handler.send({"error": "server busy"}, 503)
    chat = make_chat()
    with pytest.raises(Refused, match="is busy: server busy"):
        ask(chat, 1.5)
    assert chat.usage.requests == {"limited": 1}


@pytest.mark.parametrize("text", ["<html>It works!</html>", "[]", '{"message": 7}', "{}"])
def test_something_else_on_that_port_is_no_ollama(ollama, make_chat, text):
    ollama.chat = lambda handler, body: handler.send(text)
    with pytest.raises(NoAnswer, match="is no Ollama server"):
        ask(make_chat())


@pytest.mark.parametrize(
    ("status", "document"),
    [(500, {"error": "model runner has \x1b[31mstopped"}), (200, {"error": "out of memory"})],
)
def test_an_error_is_said_in_its_words(ollama, make_chat, status, document):
    ollama.chat = lambda handler, body: handler.send(document, status)
    with pytest.raises(LinnixError, match=f"says {status}") as raised:
        ask(make_chat())
    assert "\x1b" not in str(raised.value)


def test_a_model_that_takes_too_long_is_cut_off(ollama, make_chat):
    ollama.chat = lambda handler, body: ollama.over.wait()
    chat = make_chat()
    with pytest.raises(TooLate):
        ask(chat, 0.5)
    assert chat.usage.requests == {"late": 1}


def test_nobody_there_is_said_at_once(dead_url):
    chat = OllamaChat(Server(Exchange(dead_url), dead_url), "small")
    with pytest.raises(NoAnswer, match="does not answer"):
        ask(chat)
    chat.close()


# --- OLLAMA_HOST ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::]", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        (" 'localhost' ", "http://localhost:11434"),
        ("http://localhost:11434/", "http://localhost:11434"),
        ("https://ollama.example.com/behind/it", "https://ollama.example.com/behind/it"),
    ],
)
def test_a_host_has_the_forms_of_ollama(said, address):
    assert parse_host(said) == address


@pytest.mark.parametrize("said", ["10.0.0.7", "http://ollama.example.com", "a b", "ftp://x"])
def test_a_host_that_cannot_be_one_is_said_so(said):
    with pytest.raises(ValueError, match=r"clear text|must be"):
        parse_host(said)
    assert parse_host("10.0.0.7", plain_http=True) == "http://10.0.0.7:11434"
