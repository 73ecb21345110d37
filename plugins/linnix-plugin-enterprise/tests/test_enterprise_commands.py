"""``linnix license`` and ``linnix features`` as people use them."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner

from linnix_plugin_enterprise import features_command, license_command
from linnix_plugin_enterprise.features import Running, features, installed
from linnix_plugin_enterprise.judging import Verdict
from linnix_plugin_enterprise.machine import machine_id

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def run(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(command, *args, code=0):
        result = CliRunner().invoke(command, [str(arg) for arg in args])
        assert result.exit_code == code, result.output
        return result.output

    return run


def license_(run):
    return lambda *args, code=0: run(license_command.command, *args, code=code)


def test_a_license_from_key_to_installation(run, tmp_path, folder):
    command = license_(run)
    command("issue", "key", tmp_path / "own")
    assert (tmp_path / "own" / "linnix.private.pem").stat().st_mode & 0o777 == 0o600
    (folder / "keys" / "own.pem").write_bytes((tmp_path / "own" / "linnix.pem").read_bytes())
    key = ("--key", tmp_path / "own" / "linnix.private.pem")
    said = command(
        "issue", "license", *key, "--customer", "ACME", "--capability", "anomaly",
        "--hosts", 2, "--machine", machine_id(), "-o", "new.json",
    )  # fmt: skip
    command("verify", "new.json")
    assert "no license is installed" in command("show")
    assert "anomaly" in command("install", "new.json")
    shown = json.loads(command("show", "--json"))
    assert (shown["state"], shown["license"]["id"]) == ("valid", said.strip())
    command("issue", "revocations", *key, said.strip(), "-o", "revoked.json")
    assert "1 revoked licenses" in command("install", "revoked.json")
    assert json.loads(command("verify", "--json", code=1))["state"] == "revoked"


def test_verify_tells_a_missing_file_from_a_bad_license(run, tmp_path):
    command = license_(run)
    (tmp_path / "bad.json").write_text("{")
    assert "truncated" in command("verify", "bad.json", code=1)
    result = CliRunner().invoke(license_command.command, ["verify", "gone.json"])
    assert result.exception.exit_code == 2


def test_an_existing_key_is_not_replaced(run, tmp_path):
    result = CliRunner().invoke(license_command.command, ["issue", "key", str(tmp_path / "seller")])
    assert "exists" in str(result.exception)


# --- features -----------------------------------------------------------------------------


def test_the_table_says_what_is_licensed(run, sold, clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: clock.now_s)
    sold()
    document = json.loads(run(features_command.command, "--url", NOWHERE, "--json"))
    rows = {row["feature"]: row for row in document["features"]}
    assert rows["ML-powered anomaly detection"]["licensed"] is True
    assert rows["Jira integration"]["licensed"] is False
    assert rows["Process tracking"]["licensed"] is None
    assert rows["Process tracking"]["running"] is None
    assert document["license"]["state"] == "valid"
    assert document["running_from"]["known"] is False
    text = run(features_command.command, "--url", NOWHERE)
    assert "unknown" in text
    assert "running: unknown: no agent answers" in text


@pytest.fixture
def agent():
    """Somebody who answers ``/plugins`` with what the test says."""

    class Answer(BaseHTTPRequestHandler):
        body = b"[]"
        seen: list = []  # noqa: RUF012

        def do_GET(self):
            self.seen.append(self.headers.get("authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Answer, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_agent_says_what_runs(agent, monkeypatch):
    answer, url = agent
    answer.body = json.dumps([
        {"distribution": "linnix-plugin-rules", "state": "running"},
        {"distribution": "linnix_plugin_psi", "state": "degraded"},
        {"distribution": "linnix-plugin-http", "state": "failed"},
    ]).encode()  # fmt: skip
    running = features_command.ask(url, "secret")
    assert running.distributions == {"linnix-core", "linnix-plugin-rules", "linnix-plugin-psi"}
    assert answer.seen == ["Bearer secret"]


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"<html>", b"\xff", b"[" * 10**5])
def test_somebody_else_who_answers_is_not_believed(agent, body):
    answer, url = agent
    answer.body = body
    running = features_command.ask(url, "")
    assert running.distributions is None or body == b"{}"


@pytest.mark.parametrize("url", ["ftp://x", "http://[", "nonsense", "unix:///nowhere/at/all"])
def test_an_address_where_nobody_is_leaves_it_unknown(url):
    assert features_command.ask(url, "").distributions is None


def test_an_enterprise_distribution_is_known_by_its_metadata_alone(linnix_distribution):
    folder = linnix_distribution(
        "linnix-plugin-root-cause",
        summary="Causes",
        requires=["linnix-core>=0.1,<0.2", "linnix_plugin.enterprise >= 0.1"],
        entry_points={"linnix.handlers": {"cause": "cause:Cause"}},
        modules={"cause.py": "raise RuntimeError('imported')"},
    )
    found = installed([str(folder)])
    assert found["linnix-plugin-root-cause"].enterprise
    running = Running.of([("linnix-plugin-root-cause", "running")], "test")
    row = features(found, Verdict("missing"), running)[-1]
    assert (row.feature, row.edition, row.installed, row.licensed, row.running) == (
        "Causes", "enterprise", True, False, True,
    )  # fmt: skip


def test_what_only_an_extra_needs_makes_nobody_enterprise(linnix_distribution):
    folder = linnix_distribution(
        "linnix-plugin-open",
        requires=["linnix-core>=0.1,<0.2", 'linnix-plugin-enterprise; extra == "more"'],
    )
    assert not installed([str(folder)])["linnix-plugin-open"].enterprise
