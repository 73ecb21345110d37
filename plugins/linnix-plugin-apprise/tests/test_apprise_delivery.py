"""Two messages per incident through any service, at least once, duplicates counted.

The service is Apprise's own ``json://``: it posts title, message and type, and takes any 2xx
for success.
"""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from linnix_core import PluginUnavailable, Secret
from linnix_core.testing.secrets import QuotingRule, commands_with_secrets, leaked
from linnix_core.testing.waiting import eventually
from linnix_plugin_apprise import AppriseConfig, AppriseHandler, body_of, escaped, sink
from linnix_plugin_notify import Route, delivery
from linnix_plugin_notify.testing import (
    HOSTILE,
    LocalService,
    example_messages,
    kill_everywhere,
    story,
)

GOLDEN = Path(__file__).parent / "golden"


class Service(LocalService):
    """Takes what ``json://`` posts."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def accept(self, request):
        self.messages.append((request.path, json.loads(request.body)))
        return super().accept(request)

    def address(self, path=""):
        return self.url.replace("http:", "json:") + f"/{path}"


@pytest.fixture
def service():
    with Service() as running:
        yield running


@pytest.fixture
def soon(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "LAST_PAUSE_S", 0.05)


@pytest.fixture
def start(linnix_context, service):
    """A started handler; stopped at the end."""
    started = []

    def make(**options):
        options.setdefault("urls", (Secret(service.address()),))
        options.setdefault("resolve_after", 0.0)
        handler = AppriseHandler(AppriseConfig(**options), linnix_context("handlers.apprise"))
        started.append(handler)
        handler.linnix_start()
        handler.linnix_ready()
        return handler

    yield make
    service.release.set()
    for handler in started:
        handler.linnix_stop(time.monotonic() + 10)


def test_it_is_told_when_it_opens_and_when_it_is_over(start, service):
    handler = start()
    for told in story():
        handler.linnix_incident(told)
        eventually(lambda: service.messages)
    eventually(lambda: len(service.messages) == 2)
    (_, opened), (_, closed) = service.messages
    assert (opened["title"].split()[0], opened["type"]) == ("HIGH", "failure")
    assert (closed["title"].split()[0], closed["type"]) == ("RESOLVED", "success")


def test_it_is_told_to_be_over_only_after_a_while(start, service):
    handler = start(resolve_after=3600.0)
    opened, _, closed = story()
    handler.linnix_incident(opened)
    eventually(lambda: service.messages)
    handler.linnix_incident(closed)
    handler.linnix_stop(time.monotonic() + 10)
    assert len(service.messages) == 1


@pytest.mark.parametrize(
    "failure", [429, 500, 503, "reset", "taken-reset", "taken-cut", "hang"], ids=str
)
def test_it_is_told_at_least_once_and_what_may_be_there_twice_is_counted(
    start, service, soon, failure
):
    service.next(failure)
    handler = start(timeout=1.0)
    handler.linnix_incident(story()[0])
    eventually(lambda: handler._delivery.counts["delivered_opened"])
    assert 1 <= len(service.messages) <= 1 + handler._delivery.counts["possible_duplicates"]


def test_an_address_that_hangs_keeps_no_other_from_being_told_and_nothing_from_ending(
    start, service, soon, monkeypatch
):
    asked, accept, before = [], service.accept, set(threading.enumerate())

    def hang_at_a(request):
        asked.append(request.path)
        if request.path == "/a":
            service.release.wait()
        return accept(request)

    monkeypatch.setattr(service, "accept", hang_at_a)
    monkeypatch.setattr(sink, "_PATIENCE", 0.0001)
    urls = (Secret(service.address("a")), Secret(service.address("b")))
    handler = start(urls=urls, timeout=3600.0)
    handler.linnix_incident(story()[0])
    eventually(lambda: "/b" in asked and handler._delivery.counts["failures"] >= 3)
    assert asked.count("/a") <= 1  # it is left alone
    # The interpreter waits for those that are no daemons.
    assert [t for t in set(threading.enumerate()) - before if not t.daemon] == []


def test_who_had_the_message_does_not_get_it_again_with_the_others(start, service, soon):
    service.next("", 503, 503)
    urls = (Secret(service.address("a")), Secret(service.address("b")))
    handler = start(urls=urls)
    handler.linnix_incident(story()[0])
    eventually(lambda: handler._delivery.counts["delivered_opened"])
    assert [path for path, _ in service.messages] == ["/a", "/b"]


def test_routes_lead_to_groups(start, service):
    handler = start(
        groups={"night": (Secret(service.address("night")),)},
        routes=(Route(name="forks", classes=("fork_storm",), to="night"),),
    )
    handler.linnix_incident(story()[0])
    eventually(lambda: service.messages)
    assert service.messages[0][0] == "/night"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the route all leads nowhere"),
        ({"urls": (Secret("nothing://x"),)}, "Apprise knows no service for address 1 of urls"),
    ],
)
def test_what_leads_nowhere_is_unavailable(linnix_context, options, said):
    handler = AppriseHandler(AppriseConfig(**options), linnix_context())
    with pytest.raises(PluginUnavailable, match=said):
        handler.linnix_start()


def test_killed_between_any_two_steps_nothing_is_lost(service, tmp_path):
    options = {"urls": [service.address()], "resolve_after": 0}
    for _, names in kill_everywhere("linnix_plugin_apprise:AppriseHandler", options, tmp_path):
        words = [message["title"].split()[0] for _, message in service.messages]
        service.messages.clear()
        if "save-ended" in names:
            # Twice only where the kill came between the beginning of a delivery and its note.
            assert 1 <= words.count("RESOLVED") <= 2, names
            assert 1 <= len(words) - words.count("RESOLVED") <= 2, names
            assert len(words) <= 3, names


@pytest.mark.parametrize("name", sorted(example_messages()))
def test_every_message_reads_as_in_the_examples(name):
    message = example_messages()[name]
    text = f"{escaped(message.title)}\n\n{body_of(message)}\n"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("LINNIX_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_whatever_a_process_is_called_it_is_plain_text(name):
    for message in example_messages(name).values():
        for line in (escaped(message.title), *body_of(message).split("\n")):
            assert not set("<>@[]`*~|&\\#{}") & set(line), line
            assert "://" not in line
            assert line.isprintable()
            assert line[:1] not in ("-", "+", "=")


def test_no_secret_of_a_command_line_reaches_a_service(linnix_runtime, service, monkeypatch):
    monkeypatch.setenv("LINNIX_TEST_ADDRESS", service.address())
    records = commands_with_secrets(seed=11)
    options = {
        "urls": [{"env": "LINNIX_TEST_ADDRESS"}],
        "routes": [{"name": "all", "per_hour": 1000}],
    }
    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "apprise": AppriseHandler},
        records=records,
        options={"handlers.apprise": options},
    )
    assert agent.wait_idle(60)
    assert service.wait_for(len(records))
    sent = "\n".join(request.body.decode() for request in service.requests)
    assert leaked(sent, seed=11) == []
    assert sent.count("quoted: ") >= len(records)
