"""One reply from servers of every kind: those that obey, refuse, lie, hurry and hang."""

import email.utils
import json
import threading
import time

import pytest

from linnix_core import LinnixError
from linnix_plugin_openai import Chat, Exchange, NoAnswer, PromptTooLong, Refused, TooLate
from linnix_plugin_openai.chat import retry_after_s

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


def test_a_reply_fits_the_schema_that_was_sent(stand_in, make_chat):
    chat = make_chat(stand_in.url, api_key="k1", max_tokens=77, temperature=0.5)
    assert json.loads(ask(chat)) == {"class": "cpu_spin"}
    (body,) = stand_in.bodies
    assert body["model"] == "stand-in"
    assert body["messages"] == MESSAGES
    assert body["max_tokens"] == 77
    assert body["temperature"] == 0.5
    assert body["response_format"]["json_schema"] == {
        "name": "answer", "strict": True, "schema": SCHEMA,
    }  # fmt: skip
    assert stand_in.headers[0]["authorization"] == "Bearer k1"


def test_a_list_of_models_that_failed_is_asked_for_again(stand_in, make_chat):
    listing = stand_in.get
    stand_in.get = lambda handler: handler.send("busy", 500)
    chat = make_chat(stand_in.url, model=None)
    ask(chat)
    stand_in.get = listing
    ask(chat)
    assert [body["model"] for body in stand_in.bodies] == ["default", "first-model"]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_end_anywhere(stand_in, make_chat, path):
    ask(make_chat(f"http://127.0.0.1:{stand_in.port}{path}"))
    assert stand_in.requests[0][1] == "/v1/chat/completions"


def test_without_a_name_the_first_model_is_asked(stand_in, make_chat):
    ask(make_chat(stand_in.url, model=None))
    assert [(method, path) for method, path, _, _ in stand_in.requests] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
    ]
    assert stand_in.bodies[0]["model"] == "first-model"


def test_a_server_that_lists_no_models_is_asked_for_its_default(stand_in, make_chat):
    stand_in.get = lambda handler: handler.send("nothing", 404)
    ask(make_chat(stand_in.url, model=None))
    assert stand_in.bodies[0]["model"] == "default"


def test_extra_keys_are_sent_along(stand_in, make_chat):
    ask(make_chat(stand_in.url, extra={"reasoning_effort": "low"}))
    assert stand_in.bodies[0]["reasoning_effort"] == "low"


# --- what replies must look like ------------------------------------------------------


@pytest.mark.parametrize(
    ("enforced", "refused", "shown"),
    [
        (["json_schema"], [], "structured: enforced (json_schema)"),
        (
            ["json_object with schema"],
            ["json_schema"],
            "structured: enforced (json_object with schema)",
        ),
        (["json_object with schema"], [], "structured: enforced (json_object with schema)"),
        ([], ["json_schema"], "structured: best effort (json_object with schema)"),
        (
            [],
            ["json_schema", "json_object with schema"],
            "structured: best effort (json_object)",
        ),
        (
            [],
            ["json_schema", "json_object with schema", "json_object"],
            "structured: best effort (text)",
        ),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_the_canary_finds_what_a_server_enforces(
    stand_in, make_chat, enforced, refused, shown, status
):
    stand_in.enforcing(*enforced, refused=refused, status=status)
    chat = make_chat(stand_in.url)
    assert str(chat.probe(PATIENCE_S)) == shown
    stand_in.requests.clear()
    ask(chat)
    # What was found is used from then on, without trying what is stricter.
    assert [stand_in.form_of(body) for body in stand_in.bodies] == [shown[:-1].rpartition("(")[2]]


def test_a_strict_mode_that_knows_no_bounds_gets_none(stand_in, make_chat):
    def answer(handler, body):
        if "minItems" in json.dumps(body):
            handler.send({"error": {"message": "'minItems' is not permitted"}}, 400)
        else:
            stand_in.obey(handler, body)

    stand_in.answer = answer
    assert str(make_chat(stand_in.url).probe(PATIENCE_S)) == (
        "structured: enforced (json_schema without bounds)"
    )


def test_a_form_that_is_refused_later_makes_room_for_the_next(stand_in, make_chat):
    chat = make_chat(stand_in.url)
    chat.probe(PATIENCE_S)
    stand_in.enforcing("json_object with schema", refused=["json_schema"])
    assert json.loads(ask(chat)) == {"class": "cpu_spin"}
    assert chat.structured is None  # to be found out anew


def test_a_request_that_is_refused_in_every_form_says_what_was_said_first(stand_in, make_chat):
    stand_in.answer = lambda handler, body: handler.send(
        {"error": {"message": f"bad \x1b[31m{stand_in.form_of(body)}"}}, 400
    )
    with pytest.raises(Refused, match=r"says 400: bad .*json_schema") as refused:
        ask(make_chat(stand_in.url))
    assert "\x1b" not in str(refused.value)
    assert len(stand_in.bodies) == 5


# --- dialects -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused_key", "sent_instead"),
    [("max_tokens", "max_completion_tokens"), ("temperature", None)],
)
def test_what_newer_models_refuse_is_renamed_or_left_out(
    stand_in, make_chat, refused_key, sent_instead
):
    def answer(handler, body):
        if refused_key in body:
            said = f"Unsupported: '{refused_key}' with this model. Use 'max_completion_tokens'."
            said = said if sent_instead else f"Unsupported value: '{refused_key}'"
            handler.send({"error": {"message": said, "param": refused_key}}, 400)
        else:
            stand_in.obey(handler, body)

    stand_in.answer = answer
    chat = make_chat(stand_in.url)
    for _ in range(2):
        assert json.loads(ask(chat)) == {"class": "cpu_spin"}
    assert [refused_key in body for body in stand_in.bodies] == [True, False, False]
    assert sent_instead is None or stand_in.bodies[-1][sent_instead] == 400


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens.",
        "request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it",
        "prompt too long; exceeded max context length by 12 tokens",
    ],
)
def test_a_prompt_that_does_not_fit_is_told_apart(stand_in, make_chat, said):
    stand_in.answer = lambda handler, body: handler.send({"error": {"message": said}}, 400)
    with pytest.raises(PromptTooLong):
        ask(make_chat(stand_in.url))
    assert len(stand_in.bodies) == 1


# --- refusals and stops ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "said", "outcome"),
    [
        ({"text": None, "refusal": "I will not."}, "the model refused: I will not.", "refused"),
        ({"text": "", "reason": "content_filter"}, "a filter of the server", "refused"),
        ({"text": '{"class": "cpu', "reason": "length"}, "not done after 400 tokens", "cut"),
        ({"text": "", "reason": "length"}, "not done after 400 tokens", "cut"),
    ],
)
def test_a_reply_that_is_none_says_why(stand_in, make_chat, document, said, outcome):
    stand_in.answer = lambda handler, body: handler.send(stand_in.reply(**document))
    chat = make_chat(stand_in.url)
    with pytest.raises(Refused, match=said):
        ask(chat)
    assert chat.usage.requests == {outcome: 1}


def test_a_reply_that_was_whole_before_it_was_cut_counts(stand_in, make_chat):
    text = '{"class": "cpu_spin"}\n\nAnd another thing'
    stand_in.answer = lambda handler, body: handler.send(stand_in.reply(text, reason="length"))
    assert ask(make_chat(stand_in.url)) == text


def test_a_reply_in_parts_is_put_together(stand_in, make_chat):
    parts = [{"type": "text", "text": '{"class": '}, {"type": "text", "text": '"cpu_spin"}'}, 7]
    stand_in.answer = lambda handler, body: handler.send(stand_in.reply(parts))
    assert json.loads(ask(make_chat(stand_in.url))) == {"class": "cpu_spin"}


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "OPENAI_API_KEY"), (403, "key"), (404, "endpoint or model"), (302, "endpoint")],
)
def test_a_mistake_of_the_user_comes_with_the_next_step(stand_in, make_chat, status, hint):
    stand_in.answer = lambda handler, body: handler.send(
        {"error": {"message": "no"}}, status, location="https://elsewhere.example"
    )
    with pytest.raises(Refused, match=f"says {status}: no") as refused:
        ask(make_chat(stand_in.url))
    assert hint in refused.value.hint
    assert len(stand_in.bodies) == 1


# --- servers that are busy ------------------------------------------------------------


@pytest.mark.parametrize(("status", "headers"), [(429, {"retry_after": "1"}), (503, {})])
def test_a_busy_server_is_asked_again_when_it_says(stand_in, make_chat, status, headers):
    def answer(handler, body):
        if len(stand_in.bodies) == 1:
            handler.send({"error": {"message": "Loading model"}}, status, **headers)
        else:
            stand_in.obey(handler, body)

    stand_in.answer = answer
    assert json.loads(ask(make_chat(stand_in.url))) == {"class": "cpu_spin"}
    assert len(stand_in.bodies) == 2


def test_a_server_that_wants_a_long_rest_gets_it(stand_in, make_chat):
    stand_in.answer = lambda handler, body: handler.send(
        {"error": {"message": "slow down"}}, 429, retry_after="3600"
    )
    chat = make_chat(stand_in.url)
    assert not chat.rests
    with pytest.raises(Refused, match=r"says 429: slow down; asked again in 3[56]\d\d s"):
        ask(chat)
    assert chat.rests
    assert chat.usage.requests == {"limited": 1}


def test_waiting_for_a_busy_server_ends_when_the_run_does(stand_in, make_chat):
    stop = threading.Event()

    def answer(handler, body):
        stop.set()
        handler.send({}, 429, retry_after="20")

    stand_in.answer = answer
    with pytest.raises(NoAnswer, match="not asked any more"):
        ask(make_chat(stand_in.url, stop=stop))


def test_retry_after_may_be_a_date():
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < retry_after_s(later) <= 100
    assert retry_after_s(email.utils.formatdate(0)) == 0
    assert retry_after_s("") is retry_after_s("-3") is retry_after_s("99999999999") is None


# --- servers that are no use ----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["<html>It works!</html>", "[]", "7", "", '{"choices": [7]}', '{"choices": []}', "[" * 9999],
)
def test_something_else_on_that_port_is_no_model(stand_in, make_chat, text):
    stand_in.answer = lambda handler, body: handler.send(text)
    with pytest.raises(NoAnswer, match="speaks no OpenAI-compatible API"):
        ask(make_chat(stand_in.url))


def test_an_error_within_a_success_is_an_error(stand_in, make_chat):
    stand_in.answer = lambda handler, body: handler.send({"error": {"message": "upstream died"}})
    with pytest.raises(Refused, match="upstream died"):
        ask(make_chat(stand_in.url))


def test_nobody_there_is_said_at_once(dead_url, make_chat):
    with pytest.raises(NoAnswer, match="does not answer"):
        ask(make_chat(dead_url))


def never(stand_in, handler):
    stand_in.over.wait()


def headers_forever(stand_in, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not stand_in.over.wait(0.05):
        handler.wfile.write(b"x: y\r\n")
        handler.wfile.flush()


def drips(stand_in, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while not stand_in.over.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def drips_without_length(stand_in, handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(stand_in.reply("{}")).encode())
    while not stand_in.over.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.mark.parametrize("hang", [never, headers_forever, drips, drips_without_length])
@pytest.mark.parametrize("secure", [False, True])
def test_a_slow_server_is_cut_off_whatever_it_does(request, make_chat, hang, secure):
    server = request.getfixturevalue("tls_stand_in" if secure else "stand_in")
    server.answer = lambda handler, body: hang(server, handler)
    chat = make_chat(server.url, ca_file=server.ca_file if secure else None)
    with pytest.raises(TooLate, match=r"has not answered within 0\.\d+ s"):
        ask(chat, 0.6)
    assert chat.usage.requests == {"late": 1}


def test_an_endless_answer_is_not_taken_in(stand_in, make_chat):
    def answer(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(b" " * 65536)

    stand_in.answer = answer
    with pytest.raises(NoAnswer, match="longer than 4 MiB"):
        ask(make_chat(stand_in.url))


def test_a_compressed_answer_is_not_unpacked(stand_in, make_chat):
    stand_in.answer = lambda handler, body: handler.send("x", content_encoding="gzip")
    with pytest.raises(NoAnswer, match="compressed"):
        ask(make_chat(stand_in.url))
    assert stand_in.headers[0]["accept-encoding"] == "identity"


def test_a_question_under_way_ends_when_the_chat_is_closed(stand_in, make_chat):
    chat = make_chat(stand_in.url)

    def answer(handler, body):
        chat.close()
        stand_in.over.wait()

    stand_in.answer = answer
    with pytest.raises(NoAnswer, match="not asked any more"):
        ask(chat)
    with pytest.raises(NoAnswer, match="not asked any more"):
        ask(chat)


def test_no_time_left_is_no_question(stand_in, make_chat):
    with pytest.raises(TooLate, match="no time is left"):
        ask(make_chat(stand_in.url), 0.0)
    assert not stand_in.requests


# --- TLS, proxies and keys ------------------------------------------------------------


def test_a_private_authority_is_trusted_where_it_is_named(tls_stand_in, make_chat):
    chat = make_chat(tls_stand_in.url, ca_file=tls_stand_in.ca_file)
    assert json.loads(ask(chat)) == {"class": "cpu_spin"}


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_stand_in, make_chat):
    with pytest.raises(NoAnswer, match=r"(?i)certificate"):
        ask(make_chat(tls_stand_in.url))
    assert not tls_stand_in.requests


def test_an_authority_that_is_none_is_said_so(tmp_path):
    for text in (None, "no certificate"):
        file = tmp_path / "ca.pem"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ValueError, match=r"ca_file .* cannot be used"):
            Exchange("https://localhost", ca_file=file)


def test_the_environment_names_a_proxy(stand_in, make_chat, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{stand_in.port}")
    ask(make_chat("http://model.invalid/v1"))
    assert stand_in.requests[0][1] == "http://model.invalid/v1/chat/completions"


def test_no_proxy_hears_what_goes_to_this_machine(stand_in, dead_url, make_chat, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", dead_url)
    monkeypatch.setenv("ALL_PROXY", dead_url)
    assert ask(make_chat(stand_in.url))


def test_a_proxy_that_is_named_is_used(stand_in, make_chat, dead_url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", dead_url)
    ask(make_chat("http://model.invalid/v1", proxy=f"http://127.0.0.1:{stand_in.port}"))
    assert stand_in.requests[0][1].startswith("http://model.invalid")
    with pytest.raises(NoAnswer, match=r"model\.invalid"):
        ask(make_chat("http://model.invalid/v1", proxy=""))


@pytest.mark.parametrize("proxy", ["made-up", "gopher://h:1", "ftp://u:hunter2@proxy.example"])
def test_a_proxy_that_is_none_is_said_without_its_password(proxy):
    with pytest.raises(ValueError, match="proxy cannot be used") as raised:
        Exchange("https://example.com", proxy=proxy)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["a b", "a\r\nx: y", "schlüssel"])
def test_a_key_that_is_none_is_not_sent(key):
    with pytest.raises(ValueError, match="api_key holds characters that no key has"):
        Exchange("https://example.com", api_key=key)


# --- what it costs --------------------------------------------------------------------


def test_tokens_and_money_are_counted(stand_in, make_reasoner):
    reasoner = make_reasoner(endpoint=stand_in.url, price_input=2.0, price_output=10.0)
    chat = reasoner.connected()
    for _ in range(2):
        ask(chat)
    found = {
        (metric.name, *metric.labels.values()): metric.value for metric in reasoner.linnix_metrics()
    }
    assert found["linnix_llm_requests", "answered"] == 2
    assert found["linnix_llm_tokens", "input"] == 22
    assert found["linnix_llm_tokens", "output"] == 10
    assert found["linnix_llm_cost",] == pytest.approx((22 * 2.0 + 10 * 10.0) / 1e6)
    assert found["linnix_llm_time",] > 0


@pytest.mark.parametrize("usage", [(-5, "many"), (True, None), (10**12, 1.5)])
def test_a_server_that_lies_about_tokens_is_not_believed(stand_in, make_chat, usage):
    stand_in.answer = lambda handler, body: handler.send(stand_in.reply("{}", usage=usage))
    chat = make_chat(stand_in.url)
    ask(chat)
    assert chat.usage.tokens == {"input": 0, "output": 0}


def test_every_error_is_one_for_people(dead_url):
    chat = Chat(Exchange(dead_url), dead_url)
    with pytest.raises(LinnixError):
        ask(chat)
    chat.close()
