"""``linnix reason`` shows what was measured, and what a model makes of it."""

import json
import re
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import LinnixError, printable
from linnix_plugin_client.endpoint import Endpoint
from linnix_plugin_client.machine import Picture, Row, top_rows
from linnix_plugin_client.prompt import make_messages

SHOWN = r"\x1b[2J\x0a\u202e[red]evil[/red]"


def picture(*rows):
    by_cpu, by_memory = top_rows(rows)
    return Picture(
        source="this machine", ts_ns=0, cpu_percent=12.345, memory_percent=50.0,
        load=(1.0, 2.0, 3.0), stalled={"cpu": 1.5}, by_cpu=by_cpu, by_memory=by_memory,
    )  # fmt: skip


# --- what is measured ----------------------------------------------------------------------


def test_the_table_has_the_five_busiest_and_of_the_others_the_five_largest():
    rows = [Row(n, "x", "x", cpu_percent=n, rss_bytes=n * 2**20) for n in range(20)]
    by_cpu, by_memory = top_rows(rows)
    assert [row.pid for row in by_cpu] == [19, 18, 17, 16, 15]
    assert [row.pid for row in by_memory] == [14, 13, 12, 11, 10]


def test_who_does_nothing_is_not_in_the_table():
    idle = [Row(1, "x", "x", cpu_percent=0.05, rss_bytes=2**19), Row(2, "y", "y")]
    assert top_rows(idle) == ((), ())


def test_with_an_agent_its_measurements_are_shown_and_explained(linnix, agent, model):
    lines = linnix("reason", "--url", agent.url, "--endpoint", model.url).splitlines()
    assert lines[0].startswith(f"System snapshot (from {agent.url}, ")
    assert lines[1:4] == ["  CPU      25.0%", "  Memory   25.0%", "  Load     1.00 0.50 0.25"]
    command = f"{SHOWN} --token=[redacted]"
    assert lines[5:] == [
        "Top resource consumers",
        f"┌─────┬─────────┬─{'─' * len(command)}─┬─────────┬─────────┐",
        f"│  ID │     PID │ {'Process'.ljust(len(command))} │     CPU │  Memory │",
        f"├─────┼─────────┼─{'─' * len(command)}─┼─────────┼─────────┤",
        f"│  P1 │      11 │ {'worker -x'.ljust(len(command))} │  150.0% │    0.0% │",
        f"│  P2 │      12 │ {command} │   50.0% │   12.5% │",
        f"└─────┴─────────┴─{'─' * len(command)}─┴─────────┴─────────┘",
        "",
        "java spins.",
        "— in the words of tiny; the table is what was measured",
    ]


def test_without_an_agent_this_machine_is_measured(linnix, model):
    said = linnix("reason", "--here", "--endpoint", model.url, LINNIX_URL="unix:///nowhere")
    assert "System snapshot (this machine, without an agent" in said
    assert "java spins." in said
    assert re.search(r"│ +P1 │ +\d+ │ .+ │ +\d+\.\d% │ +\d+\.\d% │", said)


def test_where_no_agent_runs_this_machine_is_measured_and_that_is_said(
    linnix, model, monkeypatch, free_tcp_port
):
    monkeypatch.setattr(
        "linnix_plugin_client.agent.DEFAULT_URL", f"http://127.0.0.1:{free_tcp_port}"
    )
    said = linnix("reason", "--endpoint", model.url)
    assert "without an agent" in said
    assert said.remarks.endswith("Connection refused; measuring this machine instead\n")


def test_an_agent_that_was_named_has_to_answer(linnix, model, free_tcp_port):
    with pytest.raises(LinnixError, match="no agent answers"):
        linnix("reason", "--url", f"127.0.0.1:{free_tcp_port}", "--endpoint", model.url)


def test_alerts_and_insights_are_shown_and_given_to_the_model(linnix, agent, model):
    agent.alert(severity="low")
    said = linnix("reason", "--url", agent.url, "--endpoint", model.url, "--alerts", "--insights")
    assert "[LOW] fork_storm: 212 forks in 5 s by sh (pid 10)\n" in said
    assert "fork_storm: Fork storm by sh (pid 10): 212 forks" in said
    data = given_data(model.asked[0]["messages"])
    assert data["alerts"][0]["evidence"][0] == {"name": "forks", "value": 212, "unit": "forks"}
    assert data["insights"][0]["class"] == "fork_storm"


def test_as_json_everything_is_one_document(linnix, agent, model):
    said = linnix("reason", "--url", agent.url, "--endpoint", model.url, "--json").json()
    assert [(each["id"], each["pid"]) for each in said["processes"]] == [("P1", 11), ("P2", 12)]
    assert said["snapshot"]["cpu_percent"] == 25
    assert said["analysis"] == {
        "text": "java spins.", "model": "tiny", "cut": False,
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }  # fmt: skip
    assert (said["alerts"], said["error"]) == (None, None)


def test_words_are_printed_as_they_come(linnix, agent, model):
    model.answer = "<think>hm</think>P1 (worker)\nspins \x1b[2J."
    said = linnix("reason", "--url", agent.url, "--endpoint", model.url, "--stream")
    assert "\n\nP1 (worker)\nspins \\x1b[2J.\n— in the words of tiny;" in said
    assert model.asked[0]["stream"] is True


def test_the_output_goes_to_a_private_file_too(linnix, agent, model, tmp_path):
    for options in ([], ["--stream"], ["--json"]):
        path = tmp_path / f"report{len(options)}"
        said = linnix("reason", "--url", agent.url, "--endpoint", model.url,
                      "--output", str(path), *options)  # fmt: skip
        assert path.read_text() == said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_found_out_before_anybody_is_asked(linnix, model):
    with pytest.raises(OSError, match="No such file"):
        linnix("reason", "--here", "--endpoint", model.url, "--output", "/nowhere/report")
    assert model.requests == []


def test_without_a_model_what_was_measured_is_shown_and_the_end_is_an_error(
    linnix, agent, free_tcp_port
):
    from click.testing import CliRunner

    from linnix_plugin_client.reason import reason

    endpoint = f"http://127.0.0.1:{free_tcp_port}/v1"
    for options in ([], ["--json"]):
        result = CliRunner().invoke(reason, ["--url", agent.url, "--endpoint", endpoint, *options])
        assert "worker -x" in result.stdout
        assert isinstance(result.exception, LinnixError)
        assert f"no model answers at {endpoint}" in str(result.exception)
    assert json.loads(result.stdout)["error"]["message"] == str(result.exception)


# --- what a model is asked -----------------------------------------------------------------


def given_data(messages):
    """The measurements in a prompt, which stand between two marks."""
    content = messages[1]["content"]
    (mark,) = set(re.findall(r"</?(data-[0-9a-f]{16})>", content))
    return json.loads(content.split(f"<{mark}>")[1].split(f"</{mark}>")[0])


def test_a_model_gets_ids_and_numbers_and_no_arguments(linnix, agent, model):
    linnix("reason", "--url", agent.url, "--endpoint", model.url, "--model", "big")
    (asked,) = model.asked
    assert asked["model"] == "big"
    assert given_data(asked["messages"])["processes"] == [
        {"id": "P1", "name": "worker", "cpu_percent": 150.0, "memory_percent": 0.01},
        {"id": "P2", "name": "__2J___red_evil", "cpu_percent": 50.0, "memory_percent": 12.5},
    ]
    assert "token" not in json.dumps(asked["messages"])


def test_short_asks_for_one_sentence(linnix, agent, model):
    linnix("reason", "--url", agent.url, "--endpoint", model.url, "--short")
    (asked,) = model.asked
    assert asked["messages"][1]["content"].startswith("Answer with one sentence")
    assert asked["max_tokens"] == 120


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_name_can_say_anything_to_the_model(comm, rule):
    alert = {"rule": rule, "class": comm, "severity": rule, "subject": {"comm": comm},
             "evidence": [{"name": rule, "value": 1, "unit": comm}]}  # fmt: skip
    row = Row(7, comm, rule, cpu_percent=1, memory_percent=1, rss_bytes=2**30)
    messages = make_messages(picture(row), short=True, alerts=[alert], insights=[
        {"class": comm, "confidence": 1, "primary_process": f"{comm} (pid 7)"},
    ])  # fmt: skip
    content = messages[1]["content"]
    assert content.isascii()
    assert content.count("\n") == 4
    data = given_data(messages)
    words = [data["processes"][0]["name"], *data["alerts"][0].values()]
    assert all(len(word) <= 15 for word in words if isinstance(word, str))
    assert not any(re.search(r"[\s<>{}\"'\\]", word) for word in words if isinstance(word, str))
    assert data["insights"][0]["process"] == "P1"


def test_nobody_can_know_the_mark_before():
    contents = {make_messages(picture(), short=True)[1]["content"] for _ in range(20)}
    assert len(contents) == 20


# --- keys and addresses --------------------------------------------------------------------


def test_the_key_goes_to_the_endpoint_that_was_named(linnix, agent, model):
    linnix("reason", "--url", agent.url, LLM_ENDPOINT=model.url, LLM_MODEL="m",
           OPENAI_API_KEY="sk-1", LINNIX_API_TOKEN="lnx")  # fmt: skip
    ((_, path, headers, body),) = model.requests
    assert (path, headers["authorization"], body["model"]) == (
        "/v1/chat/completions", "Bearer sk-1", "m",
    )  # fmt: skip


def test_whoever_listens_on_the_default_port_gets_no_key(linnix, agent, model, monkeypatch):
    monkeypatch.setattr("linnix_plugin_client.endpoint.DEFAULT_ENDPOINT", model.url)
    linnix("reason", "--url", agent.url, OPENAI_API_KEY="sk-1")
    assert model.asked
    assert not any("authorization" in headers for _, _, headers, _ in model.requests)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_endpoint_may_be_named_by_its_base(model, path):
    asked = Endpoint(model.url.removesuffix("/v1") + path)
    assert asked.first_model() == "tiny"
    assert asked.ask([], model="x", max_tokens=1).text == "java spins."
    asked.close()
    assert [request[1] for request in model.requests] == ["/v1/models", "/v1/chat/completions"]


# --- models that do not do what they should ------------------------------------------------


@pytest.fixture
def ask(model):
    """Ask the model server, which answers with ``replies``."""
    endpoints = []

    def ask(*replies, timeout_s=30.0, hear=None):
        model.replies = list(replies)
        endpoints.append(Endpoint(model.url, timeout_s=timeout_s))
        return endpoints[-1].ask([], model="tiny", max_tokens=9, hear=hear)

    yield ask
    for endpoint in endpoints:
        endpoint.close()


def says(text, **parts):
    choice = {"message": {"content": text}, "finish_reason": "stop", **parts}
    return 200, {"choices": [choice]}


def test_thoughts_are_left_out_and_a_cut_is_said(ask):
    reply = ask(says("<think>a\nb</think> All <quiet>.", finish_reason="length"))
    assert (reply.text, reply.cut) == ("All <quiet>.", True)


@given(st.text(alphabet="<>/think ab", max_size=60), st.integers(1, 7))
def test_thoughts_are_left_out_wherever_the_text_is_cut(text, size):
    from linnix_plugin_client.endpoint import _Thoughts

    whole, parts = _Thoughts(), _Thoughts()
    together = "".join(parts.without(text[i : i + size]) for i in range(0, len(text), size))
    assert together + parts.rest() == whole.without(text) + whole.rest()


def test_a_refusal_is_an_answer(ask):
    message = {"content": None, "refusal": "I will not."}
    assert ask((200, {"choices": [{"message": message}]})).text == "I will not."


def test_newer_models_are_asked_with_their_own_word_for_the_limit(ask, model):
    error = {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}
    assert ask((400, error)).text == "java spins."
    assert [sorted(body) for body in model.asked] == [
        ["max_tokens", "messages", "model"], ["max_completion_tokens", "messages", "model"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((500, {"error": {"message": "out\nof \x1b[2Jmemory"}}), r"says 500: out of \\x1b\[2Jmem"),
        ((401, {"error": {"message": "bad key"}}), "says 401: bad key"),
        ((404, b"<html>"), "says 404: Not Found"),
        ((200, b"<html>"), "speaks no OpenAI-compatible API"),
        ((200, b"[" * 100_000), "speaks no OpenAI-compatible API"),
        ((200, []), "said nothing"),
        ((200, {"choices": []}), "said nothing"),
        ((200, {"choices": [7]}), "speaks no OpenAI-compatible API"),
        ((200, {"choices": [{"message": "x"}]}), "speaks no OpenAI-compatible API"),
        (says(""), "said nothing"),
        (says("<think>for ever"), "said nothing"),
    ],
)
def test_a_model_that_fails_is_one_sentence(ask, reply, said):
    with pytest.raises(LinnixError, match=said) as caught:
        ask(reply)
    assert printable(str(caught.value)) == str(caught.value)


def test_a_model_that_is_busy_says_when_to_come_back(ask):
    def busy(request):
        request._send(429, {"error": {"message": "slow down"}}, retry_after="7")

    with pytest.raises(LinnixError, match="says 429: slow down") as caught:
        ask(busy)
    assert caught.value.hint == "try again in 7 s"


def test_a_model_that_says_a_word_now_and_then_does_not_hold_anybody_up(ask):
    def drip(request):
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.end_headers()
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            request._event("tiny", {"content": "x "}, None)
            time.sleep(0.05)

    # Had it been waited for to the end, there would be a reply.
    with pytest.raises(LinnixError, match=r"not done within 1 s"):
        ask(drip, timeout_s=1, hear=lambda words: None)


def test_a_model_that_never_stops_is_cut(ask):
    def chatter(request):
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.end_headers()
        while True:
            try:
                request._event("tiny", {"content": "word " * 1000}, None)
            except OSError:
                return

    heard = []
    reply = ask(chatter, hear=heard.append)
    assert reply.cut
    assert len("".join(heard)) == 16_000


def test_a_model_that_breaks_off_in_the_middle_leaves_a_whole_line(linnix, agent, model, capfd):
    def break_off(request):
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("content-length", "100000")
        request.end_headers()
        request._event("tiny", {"content": "The machine"}, None)

    model.replies = [break_off]
    with pytest.raises(LinnixError, match="broke off"):
        linnix("reason", "--url", agent.url, "--endpoint", model.url, "--stream",
               "--output", "/dev/stderr")  # fmt: skip
    assert capfd.readouterr().err.endswith("\n\nThe machine\n")


def test_a_line_that_never_ends_is_cut(ask, monkeypatch):
    monkeypatch.setattr("linnix_plugin_client.events.MAX_LINE", 100_000)

    def endless(request):
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.end_headers()
        while True:
            try:
                request.wfile.write(b"data: " + b"x" * 10_000)
            except OSError:
                return

    with pytest.raises(LinnixError, match="longer than"):
        ask(endless, hear=lambda words: None)
