"""A reply in pieces, from servers that stream and from those that do not."""

import json

import pytest

from linnix_core import LinnixError
from linnix_plugin_openai import NoAnswer, Refused, TooLate, stream_text

MESSAGES = [{"role": "user", "content": "Hi"}]


def pieces(stand_in, *words, ending=b"data: [DONE]\n\n"):
    def answer(handler, body):
        assert body["stream"]
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        handler.wfile.write(b": a comment\n\n")
        for word in words:
            delta = {"choices": [{"index": 0, "delta": {"content": word}}]}
            handler.wfile.write(f"data: {json.dumps(delta)}\r\n\r\n".encode())
        used = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(words)}}
        handler.wfile.write(f"data: {json.dumps(used)}\n\n".encode() + ending)
        handler.close_connection = True

    stand_in.answer = answer


def test_pieces_come_as_they_are(stand_in, make_chat):
    pieces(stand_in, "Hel", "", "lo", " wörld\n")
    chat = make_chat(stand_in.url)
    assert list(chat.stream(MESSAGES, 30)) == ["Hel", "lo", " wörld\n"]
    assert chat.usage.tokens == {"input": 3, "output": 4}
    assert chat.usage.requests == {"answered": 1}


def test_the_function_asks_any_endpoint(stand_in):
    pieces(stand_in, "Hello")
    said = stream_text(
        stand_in.url, MESSAGES, model="m", api_key="k", max_tokens=9, timeout_s=30
    )  # fmt: skip
    assert list(said) == ["Hello"]
    assert stand_in.bodies[0]["model"] == "m"
    assert stand_in.bodies[0]["max_tokens"] == 9
    assert stand_in.headers[0]["authorization"] == "Bearer k"


def test_whoever_has_heard_enough_hangs_up(stand_in):
    pieces(stand_in, "one", "two")
    said = stream_text(stand_in.url, MESSAGES, model="m")
    assert next(said) == "one"
    said.close()


def test_a_server_that_does_not_stream_answers_at_once(stand_in, make_chat):
    text = json.dumps(stand_in.reply("all of it"), indent=1)
    stand_in.answer = lambda handler, body: handler.send(text)
    assert list(make_chat(stand_in.url).stream(MESSAGES, 30)) == ["all of it"]


def test_a_server_without_stream_options_streams_all_the_same(stand_in, make_chat):
    pieces(stand_in, "fine")
    streams = stand_in.answer

    def answer(handler, body):
        if "stream_options" in body:
            handler.send({"error": {"message": "unknown key stream_options"}}, 400)
        else:
            streams(handler, body)

    stand_in.answer = answer
    chat = make_chat(stand_in.url)
    assert list(chat.stream(MESSAGES, 30)) == ["fine"]
    assert list(chat.stream(MESSAGES, 30)) == ["fine"]
    assert len(stand_in.bodies) == 3


def test_an_error_on_the_way_ends_it(stand_in, make_chat):
    pieces(stand_in, "so far", ending=b'data: {"error": {"message": "out of memory"}}\n\n')
    said = make_chat(stand_in.url).stream(MESSAGES, 30)
    assert next(said) == "so far"
    with pytest.raises(Refused, match="out of memory"):
        next(said)


def test_a_stream_that_goes_on_for_ever_ends_in_time(stand_in, make_chat):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        while not stand_in.over.wait(0.02):
            handler.wfile.write(b'data: {"choices": [{"delta": {"content": "and "}}]}\n\n')

    stand_in.answer = answer
    with pytest.raises(TooLate):
        list(make_chat(stand_in.url).stream(MESSAGES, 0.8))


def test_a_line_without_end_is_not_taken_in(stand_in, make_chat):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\ndata: ")
        while True:
            handler.wfile.write(b"x" * 65536)

    stand_in.answer = answer
    with pytest.raises(NoAnswer, match="a line of the answer is longer"):
        list(make_chat(stand_in.url).stream(MESSAGES, 60))


def test_an_address_that_is_none_is_said_so():
    with pytest.raises(LinnixError, match="in clear text"):
        list(stream_text("http://far.example.com", MESSAGES))
