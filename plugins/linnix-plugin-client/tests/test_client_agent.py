"""Where the agent is, who may ask it, and what is said when it does not answer."""

import contextlib
import hashlib
import socket
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linnix_core import LinnixError, printable
from linnix_plugin_client.agent import Agent, NoAnswer
from linnix_plugin_client.events import follow

# --- where it is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
        ("https://example.org/linnix/", "https://example.org/linnix"),
        ("unix:///run/linnix/api.sock", "unix:///run/linnix/api.sock"),
        ("unix:/run/linnix/api.sock", "unix:///run/linnix/api.sock"),
    ],
)
def test_an_address_may_be_written_short(written, url):
    with contextlib.closing(Agent(written)) as agent:
        assert agent.url == url


@pytest.mark.parametrize(
    "written",
    ["", "ftp://x", "http://", "unix:", "unix://", "unix:x", "http://u:p@x", "http://x:y"],
)
def test_what_is_no_address_is_refused(written):
    with pytest.raises(ValueError, match=r"address|socket"):
        Agent(written)


def test_it_answers_on_its_port_and_on_its_socket(agent, linnix):
    over_tcp = linnix("status", "--json", LINNIX_URL=agent.url).json()
    over_unix = linnix("status", "--json", LINNIX_URL=agent.socket).json()
    assert over_tcp["status"]["run_id"] == over_unix["status"]["run_id"]


def test_the_option_is_stronger_than_the_environment(agent, linnix):
    assert linnix("status", "--url", agent.url, LINNIX_URL="unix:///nowhere").startswith("linnix ")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_about_this_machine(agent, linnix, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert linnix("status", "--url", agent.url).startswith("linnix ")


# --- who may ask ---------------------------------------------------------------------------


@pytest.fixture
def guarded(start_agent):
    """An agent that wants a token: ``reader`` may read, ``actor`` may also act."""
    tokens = [
        {"sha256": hashlib.sha256(name.encode()).hexdigest(), "scope": scope}
        for name, scope in (("reader", "read"), ("actor", "act"))
    ]
    return start_agent(http={"tokens": tokens})


def test_a_token_opens_answers_and_streams(guarded, linnix):
    said = linnix("status", "--url", guarded.url, LINNIX_API_TOKEN=" reader\n")
    assert said.startswith("linnix ")
    with (
        contextlib.closing(Agent(guarded.url, "reader")) as agent,
        contextlib.closing(follow(agent, "/stream", {}, say=print)) as events,
    ):
        assert next(events).name == "hello"


def test_without_a_token_the_next_step_is_told(guarded, linnix):
    with pytest.raises(LinnixError, match="wants a token") as caught:
        linnix("status", "--url", guarded.url)
    assert caught.value.hint == "set LINNIX_API_TOKEN to a token of this agent"


def test_a_wrong_token_is_said_to_be_wrong_and_is_not_shown(guarded, linnix):
    with pytest.raises(LinnixError, match="refuses the token of LINNIX_API_TOKEN") as caught:
        linnix("stream", "--url", guarded.url, LINNIX_API_TOKEN="secret")
    assert "secret" not in str(caught.value)


def test_a_token_that_may_only_read_may_not_act(guarded, linnix):
    guarded.alert()
    arguments = ("feedback", "--url", guarded.url, guarded.incident, "useful")
    with pytest.raises(LinnixError, match="does not allow this: this needs a token with the"):
        linnix(*arguments, LINNIX_API_TOKEN="reader")
    assert linnix(*arguments, LINNIX_API_TOKEN="actor").startswith("Noted: ")


@pytest.mark.parametrize("token", ["a\nb", "a\x1bb", "schlüssel"])
def test_a_token_that_cannot_be_one_is_refused_before_it_is_sent(linnix, token):
    with pytest.raises(LinnixError, match="characters that no token has"):
        linnix("status", LINNIX_API_TOKEN=token)


# --- when it does not answer ---------------------------------------------------------------


class _Stranger(BaseHTTPRequestHandler):
    """Some other server, which answers what the test wants."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.tokens.append(self.headers.get("authorization"))
        code, headers, body = self.server.answer
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@pytest.fixture
def stranger(serving):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stranger)
    server.daemon_threads = True
    server.tokens = []
    serving(server)
    server.url = f"http://127.0.0.1:{server.server_port}"
    return server


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, b"<html>"), "is no Linnix agent: /status is not JSON"),
        ((200, {}, b"[" * 100_000), "is no Linnix agent: /status is not JSON"),
        ((200, {}, b"{}"), "answered something that this version does not know"),
        ((200, {}, b"[1]"), "answered something that this version does not know"),
        ((302, {"location": "http://elsewhere"}, b""), "says 302: Found"),
        ((404, {}, b"<html>gone"), "has nothing at /status"),
        ((500, {}, b'{"error": "a \\u001b[2J\\nb", "hint": "h"}'), r"says 500: a \\x1b\[2J b"),
        ((503, {"content-length": "99"}, b"x"), "broke off: peer closed connection"),
        ((418, {}, b"x" * 10_000), "says 418: xxx"),
    ],
)
def test_whatever_answers_it_is_one_sentence(linnix, stranger, answer, said):
    stranger.answer = answer
    with pytest.raises(LinnixError, match=said) as caught:
        linnix("status", "--url", stranger.url)
    assert printable(str(caught.value)) == str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_stream_that_is_none_is_said_to_be_none(linnix, stranger):
    for answer in (
        (200, {"content-type": "text/html"}, b"<html>"),
        (200, {"content-type": "text/event-stream"}, b"data: x\n\n"),
        (200, {"content-type": "text/event-stream"}, b"data: [1]\n\n"),
    ):
        stranger.answer = answer
        with pytest.raises(LinnixError, match="is no Linnix agent"):
            linnix("stream", "--url", stranger.url)


def test_an_answer_that_never_ends_is_cut(linnix, stranger, monkeypatch):
    monkeypatch.setattr("linnix_plugin_client.agent.MAX_ANSWER", 1000)
    stranger.answer = (200, {}, b"[" + b" " * 100_000)
    with pytest.raises(LinnixError, match="the answer is longer than"):
        linnix("status", "--url", stranger.url)


def test_the_token_does_not_follow_a_redirect(linnix, stranger):
    stranger.answer = (307, {"location": stranger.url + "/elsewhere"}, b"")
    with pytest.raises(LinnixError, match="says 307"):
        linnix("status", "--url", stranger.url, LINNIX_API_TOKEN="t")
    assert stranger.tokens == ["Bearer t"]


def test_an_agent_that_hangs_is_not_waited_for_long():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with (
            contextlib.closing(Agent(url, timeout_s=0.2)) as agent,
            pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s"),
        ):
            agent.get("/status")


def test_over_tls_the_certificate_has_to_be_known(start_agent, linnix, tmp_path):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    agent = start_agent(http={"tls_certificate": certificate, "tls_key": key})
    assert agent.url.startswith("https://")
    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED") as caught:
        linnix("status", "--url", agent.url)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert linnix("status", "--url", agent.url, SSL_CERT_FILE=certificate).startswith("linnix ")
