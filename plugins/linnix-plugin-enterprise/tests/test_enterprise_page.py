"""The page of the dashboard, and the state of the license as health."""

import asyncio
import json

import pytest

from linnix_core import ComponentStatus
from linnix_plugin_enterprise import EnterpriseHandler


def ask(mount, path="", method="GET", **headers):
    """Status, headers and body of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": mount.path + "/" + path,
        "root_path": mount.path, "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(mount.app(scope, None, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"].decode()


@pytest.fixture
def mount(linnix_context, folder, clock):
    hostile = ComponentStatus(
        "handlers.x", "handlers", "x", "running", distribution="linnix-plugin-rules"
    )
    context = linnix_context("handlers.enterprise", clock=clock, components=lambda: [hostile])
    (mount,) = EnterpriseHandler(None, context).linnix_http()
    return mount


def test_programs_get_json(mount):
    status, _, body = ask(mount)
    rows = {row["distribution"]: row for row in json.loads(body)["features"]}
    assert status == 200
    assert rows["linnix-plugin-rules"]["running"] is True
    assert rows["linnix-plugin-http"]["running"] is False


def test_browsers_get_a_page_without_anything_inline(mount, sold):
    sold(id="<script>", days=0.5)
    _, headers, body = ask(mount, accept="text/html,application/xhtml+xml")
    assert headers[b"content-type"].startswith(b"text/html")
    assert "<td>Process tracking</td>" in body
    assert "<script" not in body
    assert "style=" not in body
    status, headers, _ = ask(mount, "features.css")
    assert (status, headers[b"content-type"]) == (200, b"text/css")


def test_what_is_asked_with_a_token_is_text_because_no_link_carries_one(mount):
    accept = "application/json, text/html;q=0.9"
    _, headers, body = ask(mount, accept=accept, authorization="Bearer x")
    assert headers[b"content-type"].startswith(b"text/plain")
    assert body.startswith("FEATURE")


def test_there_is_nothing_else(mount):
    assert ask(mount, "other")[0] == 404
    assert ask(mount, method="POST")[0] == 405
    assert ask(mount, method="HEAD")[2] == ""


def test_health_tells_the_state_of_the_license(linnix_context, clock, sold):
    handler = EnterpriseHandler(None, linnix_context("handlers.enterprise", clock=clock))
    assert handler.linnix_health().reason == "no license is installed"
    sold()
    assert handler.linnix_health().status == "ok"
    clock.day = 101
    assert handler.linnix_health().status == "degraded"
    assert "ended on" in handler.linnix_health().reason
