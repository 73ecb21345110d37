"""One message per incident that is found again, and two with a webhook, whatever Slack does."""

import json
import time
from urllib.parse import unquote_plus

import attrs
import pytest

from linnix_core import PluginUnavailable, Secret
from linnix_core.testing.secrets import QuotingRule, commands_with_secrets, leaked
from linnix_core.testing.waiting import eventually
from linnix_plugin_notify import Route, delivery
from linnix_plugin_notify.testing import explanation, kill_everywhere, story
from linnix_plugin_slack import SlackConfig, SlackHandler

CHANNEL = "C0123456789"


@pytest.fixture
def soon(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "LAST_PAUSE_S", 0.05)


def title_of(message):
    return message["blocks"][0]["text"]["text"]


def test_the_bot_changes_its_message_and_tells_the_thread_what_is_news(start, slack):
    handler = start()
    opened, worse, closed = story()
    handler.linnix_incident(opened)
    eventually(lambda: len(slack.calls) == 1)
    assert title_of(slack.roots[0]).startswith("HIGH on web-1")
    handler.linnix_insight(explanation())
    eventually(lambda: len(slack.calls) == 2)
    assert "92 % sure" in str(slack.roots[0]["blocks"])
    handler.linnix_incident(worse)
    eventually(lambda: len(slack.calls) == 4)
    handler.linnix_incident(closed)
    eventually(lambda: len(slack.calls) == 6)
    (message,) = slack.roots
    assert message["channel"] == CHANNEL
    assert title_of(message).startswith("RESOLVED on web-1")
    assert [reply["text"].partition(":")[0] for reply in slack.replies(message["ts"])] == [
        "It got worse", "It is over",
    ]  # fmt: skip


def test_a_webhook_sends_two_messages(start, slack):
    handler = start(webhook_url=Secret(f"{slack.url}/services/T/B/x"), resolve_after=0.0)
    opened, worse, closed = story()
    handler.linnix_incident(opened)
    assert slack.wait_for(1)
    handler.linnix_incident(worse)
    handler.linnix_incident(closed)
    assert slack.wait_for(2)
    assert [title_of(m).split()[0] for m in slack.messages] == ["HIGH", "RESOLVED"]


def test_what_comes_and_goes_is_told_once_where_no_message_can_be_changed(start, slack):
    handler = start(webhook_url=Secret(f"{slack.url}/services/T/B/x"))
    opened, worse, closed = story()
    handler.linnix_incident(opened)
    eventually(lambda: handler._delivery.counts["delivered_opened"])
    for _ in range(3):
        handler.linnix_incident(closed)
        handler.linnix_incident(worse)
    # A page of its own shows that everything before it was looked at.
    other = attrs.evolve(opened, id="9f2c-i2", fingerprint="another")
    handler.linnix_incident(other)
    eventually(lambda: handler._delivery.counts["delivered_opened"] == 2)
    assert [title_of(message).split()[0] for message in slack.messages] == ["HIGH", "HIGH"]


def test_what_is_over_is_told_at_once_only_where_the_message_changes():
    webhook = SlackConfig(webhook_url=Secret("https://hooks.example/x"))
    bot = SlackConfig(bot_token=Secret("x"), channel=CHANNEL)
    assert (webhook.resolve_after, bot.resolve_after) == (900, 0)


@pytest.mark.parametrize(
    "failure",
    [(429, {"Retry-After": "0"}), 500, 503, "reset", "taken-reset", "taken-cut", "hang"],
    ids=str,
)
def test_a_message_that_may_have_arrived_is_looked_for(start, slack, soon, failure):
    slack.next(failure)
    handler = start(timeout=1.0)
    handler.linnix_incident(story()[0])
    eventually(lambda: slack.roots and not handler._delivery.waiting()[0])
    assert len(slack.roots) == 1
    handler.linnix_incident(story()[2])
    eventually(lambda: title_of(slack.roots[0]).startswith("RESOLVED"))
    assert len(slack.roots) == 1


@pytest.mark.parametrize("failure", ["taken-reset", "reset", 500], ids=str)
def test_the_thread_hears_it_once(start, slack, soon, failure):
    handler = start()
    opened, worse, _ = story()
    handler.linnix_incident(opened)
    eventually(lambda: slack.calls == ["chat.postMessage"])
    slack.next("", failure)  # the message is changed, then the reply fails
    handler.linnix_incident(worse)
    eventually(lambda: handler._delivery.counts["delivered_worse"])
    (message,) = slack.roots
    assert len(slack.replies(message["ts"])) == 1


def test_a_bot_that_may_not_read_says_so_and_tells_it_again(start, slack, soon):
    slack.can_read = False
    slack.next("taken-reset")
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(lambda: len(slack.roots) == 2)
    slack.next("taken-reset")
    handler.linnix_incident(story()[2])
    eventually(lambda: handler._delivery.counts["delivered_resolved"])
    assert "1 messages may have arrived twice" in handler.linnix_health().limits


@pytest.mark.parametrize(
    "failure",
    [(429, {"Retry-After": "0"}), 500, "reset", "taken-reset", "taken-cut", "hang"],
    ids=str,
)
def test_a_webhook_is_told_at_least_once_and_duplicates_are_counted(start, slack, soon, failure):
    slack.next(failure)
    handler = start(webhook_url=Secret(f"{slack.url}/services/T/B/x"), timeout=1.0)
    handler.linnix_incident(story()[0])
    eventually(lambda: handler._delivery.counts["delivered_opened"])
    doubled = handler._delivery.counts["possible_duplicates"]
    assert len(slack.messages) <= 1 + doubled
    assert doubled == (0 if isinstance(failure, tuple) else 1)


def test_slack_is_left_alone_for_as_long_as_it_asks(start, slack):
    slack.next((429, {"Retry-After": "1800"}))
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert handler.linnix_health().reason.startswith("Slack answered 429;")
    assert handler._delivery._trouble[CHANNEL].until_ns - time.time_ns() > 1700 * 10**9
    assert len(slack.requests) == 1


def test_a_wrong_token_is_shown_with_what_to_do(start, slack):
    handler = start(bot_token=Secret("xoxb-wrong"))
    handler.linnix_incident(story()[0])
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert "invalid_auth (give bot_token" in handler.linnix_health().reason


def test_a_page_in_place_of_an_answer_is_not_quoted(start, slack, monkeypatch):
    page = b"\xff<html>Welcome to the hotel</html>"
    monkeypatch.setattr(slack, "accept", lambda _: (200, {"content-type": "text/html"}, page))
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(handler.linnix_health, lambda health: health.status == "degraded")
    assert handler.linnix_health().reason.startswith("Slack's answer is none")
    assert "hotel" not in handler.linnix_health().reason


def test_a_message_that_somebody_deleted_is_not_sent_again(start, slack):
    handler = start()
    handler.linnix_incident(story()[0])
    eventually(lambda: slack.calls)
    slack.messages.clear()
    handler.linnix_incident(story()[2])
    eventually(lambda: handler._delivery.counts["refused"])
    assert not slack.messages


def test_routes_lead_to_channels(start, slack):
    handler = start(
        routes=(
            Route(name="critical", min_severity="critical", to="CRITICAL01"),
            Route(name="forks", classes=("fork_storm",), to="CFORKS0001"),
        )
    )
    handler.linnix_incident(story()[0])
    eventually(lambda: slack.calls)
    assert slack.messages[0]["channel"] == "CFORKS0001"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "webhook_url"),
        ({"bot_token": Secret("x")}, "set channel"),
        ({"webhook_url": Secret("ftp://x")}, "webhook_url"),
    ],
)
def test_what_leads_nowhere_is_unavailable(linnix_context, options, said):
    handler = SlackHandler(SlackConfig(**options), linnix_context())
    with pytest.raises(PluginUnavailable) as raised:
        handler.linnix_start()
    assert said in raised.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channel": "#ops"}, "^channel must be the id"),
        ({"url": "http://slack.example"}, "^url must begin with https"),
        ({"bot_token": Secret("x"), "webhook_url": Secret("y")}, "^bot_token and webhook_url"),
    ],
)
def test_mistakes_are_told(options, said):
    with pytest.raises(ValueError, match=said):
        SlackConfig(**options)


@pytest.mark.parametrize("continues", [False, True], ids=["never-seen-again", "goes-on"])
def test_killed_between_any_two_steps_the_bot_finds_its_message_again(slack, tmp_path, continues):
    options = {
        "bot_token": "xoxb-test", "channel": CHANNEL, "url": f"{slack.url}/api/",
        "update_every": 0,
    }  # fmt: skip
    kills = 0
    for _, names in kill_everywhere(
        "linnix_plugin_slack:SlackHandler", options, tmp_path, continues=continues
    ):
        roots, messages = slack.roots, list(slack.messages)
        slack.messages.clear()
        # Its end may be on disk by then: what comes after that is another one.
        ended = continues and names.count("deliver-ended") >= 2
        if "save-ended" in names or continues:
            assert 1 <= len(roots) <= 1 + ended, names
        for message in roots:
            assert title_of(message).startswith("RESOLVED"), names
            news = [m["text"] for m in messages if m["thread_ts"] == message["ts"]]
            assert sum(text.startswith("It is over") for text in news) <= 1 + ended, names
        kills += 1
    assert kills > 12


def test_killed_between_any_two_steps_a_webhook_loses_nothing(slack, tmp_path):
    options = {"webhook_url": f"{slack.url}/services/T/B/x", "resolve_after": 0}
    for _, names in kill_everywhere("linnix_plugin_slack:SlackHandler", options, tmp_path):
        words = [title_of(message).split()[0] for message in slack.messages]
        slack.messages.clear()
        if "save-ended" in names:
            # Twice only where the kill came between the beginning of a delivery and its note.
            assert 1 <= words.count("RESOLVED") <= 2, names
            assert 1 <= len(words) - words.count("RESOLVED") <= 2, names
            assert len(words) <= 3, names


def test_no_secret_of_a_command_line_reaches_slack(linnix_runtime, slack, monkeypatch):
    monkeypatch.setenv("LINNIX_TEST_BOT_TOKEN", "xoxb-test")
    records = commands_with_secrets(seed=9)
    options = {
        "bot_token": {"env": "LINNIX_TEST_BOT_TOKEN"},
        "channel": CHANNEL,
        "url": f"{slack.url}/api/",
        "routes": [{"name": "all", "per_hour": 1000}],
    }
    agent = linnix_runtime(
        handlers={"quoting": QuotingRule, "slack": SlackHandler},
        records=records,
        options={"handlers.slack": options},
    )
    assert agent.wait_idle(60)
    assert slack.wait_for(len(records))
    sent = json.dumps([*slack.messages, *(unquote_plus(r.body.decode()) for r in slack.requests)])
    assert leaked(sent, seed=9) == []
    assert sent.count("quoted: ") >= len(records)
