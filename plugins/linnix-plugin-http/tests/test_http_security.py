"""Who gets in, and what one request may cost. Asked with curl, as people would."""

import contextlib
import json
import os
import socket
import stat
import subprocess
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from click.testing import CliRunner
from http_client import PATIENCE_S, Reader, family, handler_of

from linnix_core import PluginUnavailable
from linnix_plugin_http import HttpConfig, HttpHandler, Token
from linnix_plugin_http.command import command
from linnix_plugin_http.config import is_loopback, split_address
from linnix_plugin_http.tokens import allowed_by, fingerprint, new_token

READER, ACTOR, ADMIN = "reader-token", "actor-token", "admin-token"
TOKENS = [
    {"sha256": fingerprint(READER), "name": "grafana"},
    {"sha256": fingerprint(ACTOR), "scope": "act"},
    {"sha256": fingerprint(ADMIN), "scope": "admin"},
]


def curl(*arguments):
    """The status and the body of an answer."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", str(PATIENCE_S), "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def bearer(token):
    return ["-H", f"Authorization: Bearer {token}"]


# --- curl, with nothing configured ------------------------------------------------------


def test_curl_reads_and_acts_over_loopback(serve):
    _, client = serve(family())
    assert curl(f"{client.url}/healthz")[0] == 200
    status, body = curl(f"{client.url}/processes?sort=cpu_pct:desc&limit=1")
    assert (status, json.loads(body)[0]["pid"]) == (200, 11)
    posted = ["-H", "Content-Type: application/json", "-d", '{"feedback": "useful"}']
    assert curl(*posted, f"{client.url}/insights/none/feedback")[0] == 404


def test_curl_follows_the_stream(serve):
    _, client = serve(family())
    command = ["curl", "-sN", "--max-time", str(PATIENCE_S), f"{client.url}/stream?last_event_id=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        lines = []
        for line in running.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("id: 5"):
                break
        running.kill()
    assert lines[:2] == ["retry: 2000", "event: hello"]
    assert "event: seen" in lines


# --- tokens -----------------------------------------------------------------------------


def test_with_tokens_every_request_needs_one(serve):
    _, client = serve(family(), http={"tokens": TOKENS})
    url = client.url
    for path in ("/processes", "/status", "/stream", "/openapi.json", "/nosuch", "/metrics"):
        assert curl(f"{url}{path}")[0] == 401, path
        assert curl(*bearer("wrong"), f"{url}{path}")[0] == 401, path
        assert curl("-H", f"Authorization: Basic {READER}", f"{url}{path}")[0] == 401, path
    assert curl(*bearer(READER), f"{url}/processes")[0] == 200
    assert curl("-H", f"authorization: bearer {READER}", f"{url}/processes")[0] == 200
    assert curl(f"{url}/processes?token={READER}")[0] == 401


def test_whether_it_is_there_needs_no_token(serve):
    _, client = serve(family(), http={"tokens": TOKENS})
    assert curl(f"{client.url}/healthz")[0] == 200
    assert curl(f"{client.url}/readyz")[0] == 200
    _, headers, _ = client.request("GET", "/processes")
    assert headers["www-authenticate"].startswith("Bearer")


def test_a_token_may_do_what_its_scope_says(serve):
    _, client = serve(http={"tokens": TOKENS})
    given = ["-H", "Content-Type: application/json", "-d", '{"feedback": "useful"}']
    url = f"{client.url}/insights/none/feedback"
    for token, status in ((READER, 403), (ACTOR, 404), (ADMIN, 404)):
        assert curl(*bearer(token), *given, url)[0] == status
    # What other plugins offer, too.
    assert curl(*bearer(READER), "-X", "POST", f"{client.url}/slack/actions")[0] == 403
    assert curl(*bearer(ACTOR), "-X", "POST", f"{client.url}/slack/actions")[0] == 404


def test_scopes_include_the_smaller_ones():
    made = new_token()
    tokens = [Token(fingerprint(made), scope="act"), Token(fingerprint("x"))]
    assert allowed_by(tokens, made) == {"read", "act"}
    assert allowed_by(tokens, "x") == {"read"}
    assert allowed_by(tokens, "") == frozenset()
    assert allowed_by(tokens, "ä\ud800".encode("utf-8", "replace").decode()) == frozenset()
    assert len(made) > 40
    assert new_token() != made


def test_the_command_makes_a_token_that_lets_in(serve):
    done = CliRunner().invoke(command, ["token", "new", "--scope", "act", "--name", "a", "--json"])
    assert done.exit_code == 0
    made = json.loads(done.output)
    token = made.pop("token")
    _, client = serve(http={"tokens": [made]})
    assert curl(*bearer(token), f"{client.url}/status")[0] == 200


def test_the_command_shows_a_token_once_and_the_lines_for_the_configuration():
    done = CliRunner().invoke(command, ["token", "new", "--name", "it's me"])
    assert done.exit_code != 0
    done = CliRunner().invoke(command, ["token", "new", "--name", "me"])
    token = next(line.strip() for line in done.output.splitlines() if "lnx_" in line)
    table = done.output.partition("[[handlers.http.tokens]]")[2]
    assert f'sha256 = "{fingerprint(token)}"' in table
    assert 'scope = "read"' in table
    assert token not in table


# --- where it listens -------------------------------------------------------------------


def built(linnix_context, **keys):
    return HttpHandler(HttpConfig(**keys), linnix_context("handlers.http"))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_nothing_is_served_to_others_without_protection(linnix_context, address):
    handler = built(linnix_context, listen=address)
    with pytest.raises(PluginUnavailable, match="nothing protects it") as raised:
        handler.linnix_start()
    assert "token" in raised.value.hint
    handler.linnix_stop(time.monotonic() + 1)


def test_with_a_token_it_may_be_reached_from_everywhere(serve):
    agent, client = serve(http={"listen": "0.0.0.0:0", "tokens": TOKENS})
    url = f"http://127.0.0.1:{client.port}"
    assert curl(*bearer(READER), f"{url}/status")[0] == 200
    (limit,) = handler_of(agent).linnix_health().limits
    assert "unencrypted" in limit


def test_a_port_that_is_taken_makes_it_unavailable(linnix_context):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        handler = built(linnix_context, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(PluginUnavailable, match="in use by another program"):
            handler.linnix_start()


def test_an_address_of_another_machine_makes_it_unavailable(linnix_context):
    handler = built(linnix_context, listen="203.0.113.7:0", tokens=(Token(fingerprint("x")),))
    with pytest.raises(PluginUnavailable, match="cannot listen on"):
        handler.linnix_start()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"listen": "3000"}, "listen"),
        ({"listen": "127.0.0.1:http"}, "listen"),
        ({"listen": "127.0.0.1:65536"}, "listen"),
        ({"listen": "::1:3000"}, "brackets"),
        ({"listen": ""}, "unix_socket"),
        ({"tls_key": "key.pem"}, "tls_certificate"),
        ({"unix_group": "adm"}, "unix_socket"),
        ({"history": 0}, "history"),
        ({"max_page": 0}, "max_page"),
        ({"max_body": 0}, "max_body"),
        ({"max_subscribers": 0}, "max_subscribers"),
        ({"max_connections": 0}, "max_connections"),
        ({"keep_alive": 0.5}, "keep_alive"),
    ],
)
def test_mistakes_in_the_configuration_are_named(keys, said):
    with pytest.raises(ValueError, match=said):
        HttpConfig(**keys)


def test_a_token_in_clear_is_no_hash():
    with pytest.raises(ValueError, match="linnix http token new"):
        Token("hunter2")


def test_addresses_of_this_machine():
    assert split_address("localhost:80") == ("localhost", 80)
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "203.0.113.1", "localhost.example")))


def test_ipv6(serve):
    _, client = serve(http={"listen": "[::1]:0"})
    assert client.url.startswith("http://[::1]:")
    assert curl(f"{client.url}/healthz")[0] == 200


# --- unix socket ------------------------------------------------------------------------


def test_a_unix_socket_is_served_as_well(serve, tmp_path):
    path = tmp_path / "http.sock"
    group = os.getgid()
    import grp

    agent, client = serve(
        family(),
        http={
            "unix_socket": str(path),
            "unix_group": grp.getgrgid(group).gr_name,
            "tokens": TOKENS,
        },
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert path.stat().st_gid == group
    # Its mode protects it: no token is needed, and any name will do.
    status, body = curl("--unix-socket", str(path), "http://agent/processes")
    assert (status, len(json.loads(body))) == (200, 5)
    assert curl(f"{client.url}/processes")[0] == 401
    agent.stop()
    assert not path.exists()


def test_only_a_unix_socket(linnix_context, tmp_path):
    handler = built(linnix_context, listen="", unix_socket=str(tmp_path / "s"))
    handler.linnix_start()
    handler.linnix_ready()
    assert handler.urls == ()
    assert curl("--unix-socket", str(tmp_path / "s"), "http://x/healthz")[0] == 200
    handler.linnix_stop(time.monotonic() + PATIENCE_S)


def test_the_socket_of_a_run_that_was_killed_is_replaced(linnix_context, tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    handler = built(linnix_context, listen="", unix_socket=str(path))
    handler.linnix_start()
    # One that is served is not.
    with pytest.raises(PluginUnavailable, match="in use"):
        built(linnix_context, listen="", unix_socket=str(path)).linnix_start()
    handler.linnix_stop(time.monotonic() + PATIENCE_S)


def test_a_file_of_that_name_is_left_alone(linnix_context, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(PluginUnavailable, match="no socket"):
        built(linnix_context, unix_socket=str(path), listen="127.0.0.1:0").linnix_start()
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"unix_socket": "{tmp}/none/s"}, "cannot listen on unix_socket"),
        ({"unix_socket": "{tmp}/s", "unix_group": "no such group"}, "there is no group"),
    ],
)
def test_a_unix_socket_that_cannot_be(linnix_context, tmp_path, keys, said):
    keys = {name: value.format(tmp=tmp_path) for name, value in keys.items()}
    with pytest.raises(PluginUnavailable, match=said):
        built(linnix_context, listen="", **keys).linnix_start()


# --- TLS --------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    asked = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run(
        ["openssl", "req", *asked, *named, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    return cert, key


def test_tls(serve, certificate, tmp_path):
    cert, key = certificate
    path = tmp_path / "s"
    agent, client = serve(
        family(),
        http={
            "listen": "0.0.0.0:0",
            "tls_certificate": str(cert),
            "tls_key": str(key),
            "unix_socket": str(path),
        },
    )
    url = f"https://localhost:{client.port}"
    assert client.url.startswith("https://")
    status, body = curl("--cacert", str(cert), f"{url}/processes")
    assert (status, len(json.loads(body))) == (200, 5)
    # Beside it, the unix socket goes without.
    assert curl("--unix-socket", str(path), "http://x/healthz")[0] == 200
    # Others may come here, and nobody says who they are: they may look.
    given = ["-H", "Content-Type: application/json", "-d", '{"feedback": "useful"}']
    assert curl("--cacert", str(cert), *given, f"{url}/insights/none/feedback")[0] == 403
    (limit,) = handler_of(agent).linnix_health().limits
    assert "no tokens" in limit


def test_a_certificate_that_is_none(linnix_context, tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    for path in (tmp_path / "cert.pem", tmp_path / "none.pem"):
        handler = built(linnix_context, listen="127.0.0.1:0", tls_certificate=str(path))
        with pytest.raises(PluginUnavailable, match="tls_certificate"):
            handler.linnix_start()


# --- pages of others --------------------------------------------------------------------


def test_a_foreign_name_that_leads_here_is_refused(serve):
    _, client = serve(http={"allowed_hosts": ["Linnix.example.org"]})
    for host, status in (
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("linnix.example.org", 200),
        ("LINNIX.example.org.:3000", 200),
        ("localhost:3000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("203.0.113.7", 200),
        ("[", 421),
        ("", 421),
    ):
        assert client.request("GET", "/status", headers={"Host": host})[0] == status, host


def test_a_foreign_page_can_neither_read_nor_act(serve):
    _, client = serve()
    given = {"Content-Type": "application/json", "Origin": "https://evil.example"}
    path = "/insights/none/feedback"
    assert client.request("POST", path, {"feedback": "useful"}, given)[0] == 403
    cross = {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}
    assert client.request("POST", path, {"feedback": "useful"}, cross)[0] == 403
    own = {"Content-Type": "application/json", "Origin": client.url}
    assert client.request("POST", path, {"feedback": "useful"}, own)[0] == 404
    # A browser asks before it sends JSON to elsewhere, and hears nothing that allows it.
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    status, headers, _ = client.request("OPTIONS", path, headers=asked)
    assert status in (403, 405)
    for _, headers, _ in (
        client.request("GET", "/status", headers={"Origin": "https://evil.example"}),
        client.request("OPTIONS", path, headers=asked),
    ):
        assert not [name for name in headers if name.startswith("access-control")]
        assert "set-cookie" not in headers


def test_answers_forbid_what_pages_could_do_with_them(serve):
    _, client = serve()
    for path in ("/status", "/nosuch", "/insights/x?format=html", "/stream?type=x"):
        _, headers, _ = client.request("GET", path)
        assert headers["x-content-type-options"] == "nosniff"
        age = datetime.now(UTC) - parsedate_to_datetime(headers["date"])
        assert abs(age.total_seconds()) < 60
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


# --- what one request may cost ----------------------------------------------------------


def test_a_body_is_bounded(serve):
    _, client = serve(http={"max_body": 100})
    body = json.dumps({"feedback": "useful", "note": "x" * 100}).encode()
    given = {"Content-Type": "application/json"}
    path = "/insights/none/feedback"
    assert client.refused(path, "POST", body=body, headers=given)[0] == 413
    # Also one that does not say beforehand how long it is.
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/json"]
    assert curl(*chunked, "-d", body.decode(), f"{client.url}{path}")[0] == 413
    small = json.dumps({"feedback": "useful"}).encode()
    assert client.refused(path, "POST", body=small, headers=given)[0] == 404


def test_a_page_is_bounded(serve):
    _, client = serve(family(), http={"max_page": 2})
    assert len(client.get("/processes")) == 2
    assert len(client.get("/processes?limit=5")) == 2
    found = client.get("/tree")
    assert (len(found["processes"]), found["total"], found["complete"]) == (2, 5, False)


def test_connections_are_bounded(serve):
    _, client = serve(http={"max_connections": 3})
    held = [socket.create_connection((client.host, client.port)) for _ in range(4)]
    try:
        assert client.request("GET", "/healthz")[0] == 503
    finally:
        for each in held:
            each.close()


def test_a_head_is_bounded(serve):
    _, client = serve()
    with socket.create_connection((client.host, client.port), timeout=PATIENCE_S) as greedy:
        greedy.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 2**24:
                greedy.sendall(b"X: " + b"y" * 1000 + b"\r\n")
                sent += 1005
        assert sent < 2**24
    assert client.get("/healthz")


def test_whoever_says_nothing_is_sent_away(serve, monkeypatch):
    monkeypatch.setattr("linnix_plugin_http.server.HEAD_S", 0.2)
    _, client = serve()
    with socket.create_connection((client.host, client.port), timeout=PATIENCE_S) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""


def test_a_body_that_does_not_come_is_not_waited_for(serve, monkeypatch):
    monkeypatch.setattr("linnix_plugin_http.security.BODY_S", 0.2)
    _, client = serve()
    with socket.create_connection((client.host, client.port), timeout=PATIENCE_S) as slow:
        head = [
            "POST /insights/none/feedback HTTP/1.1",
            f"Host: {client.host}",
            "Content-Type: application/json",
            "Content-Length: 10",
        ]
        slow.sendall("\r\n".join([*head, "", "{"]).encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_streams_are_not_bound_by_the_time_for_a_body(serve, monkeypatch):
    monkeypatch.setattr("linnix_plugin_http.security.BODY_S", 0.1)
    _, client = serve(http={"keep_alive": 1})
    with Reader(client, "/stream") as reader:
        assert [reader.event().keys() & {"event", "comment"} for _ in range(2)] == [
            {"event"},
            {"comment"},
        ]


# --- rights -----------------------------------------------------------------------------


def test_nothing_runs_before_the_rights_of_the_start_are_gone(linnix_context):
    handler = built(linnix_context, listen="127.0.0.1:0")
    handler.linnix_start()
    assert "linnix-http" not in [thread.name for thread in threading.enumerate()]
    # Who comes meanwhile waits.
    host, port = split_address(handler.urls[0].partition("//")[2])
    with socket.create_connection((host, port), timeout=PATIENCE_S) as early:
        early.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        handler.linnix_ready()
        assert early.recv(12) == b"HTTP/1.1 200"
    handler.linnix_stop(time.monotonic() + PATIENCE_S)
    assert "linnix-http" not in [thread.name for thread in threading.enumerate()]


def test_the_log_says_where_it_serves(serve, caplog):
    caplog.set_level("INFO")
    _, client = serve()
    assert f"serving {client.url}" in caplog.messages


def test_a_server_that_has_ended_shows(serve):
    agent, _ = serve()
    handler = handler_of(agent)
    server = handler._server
    assert server._ready.wait(PATIENCE_S)
    server._loop.call_soon_threadsafe(server._drain)
    server._thread.join(PATIENCE_S)
    assert handler.linnix_health().status == "failed"
