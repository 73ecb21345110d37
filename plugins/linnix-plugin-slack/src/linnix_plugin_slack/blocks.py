"""Messages as Block Kit.

Slack: "Formatting message text": in text objects ``&``, ``<`` and ``>`` are control characters and
have to be written as entities; all else that formats is mrkdwn, and everything here is
``plain_text``. "Block Kit" names the limits: 150 characters in a header, 3000 in a section, 50
blocks, 2000 in the value of a button.
"""

from __future__ import annotations

from typing import Any

from linnix_plugin_notify import Message, sections

__all__ = ["EVENT_TYPE", "escaped", "fallback_of", "news_of", "rendered"]

#: The type of the metadata by which a message is found again.
EVENT_TYPE = "linnix_incident"

MAX_HEADER = 150
MAX_SECTION = 3000
MAX_FALLBACK = 1000

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_BUTTONS = {"useful": "Useful", "noise": "Noise"}

_NEWS = {
    "worse": "It got worse: {}",
    "reopened": "It is back: {}",
    "resolved": "It is over: {}",
}


def escaped(text: str, limit: int) -> str:
    """Plain text for Slack, at most ``limit`` long as it is sent, with no entity cut in half."""
    parts, size = [], 0
    for number, character in enumerate(text):
        part = _ENTITIES.get(character, character)
        more = number + 1 < len(text)
        if size + len(part) > limit - more:
            parts.append("…")
            break
        parts.append(part)
        size += len(part)
    return "".join(parts)


def _plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": escaped(text, limit), "emoji": False}


def rendered(message: Message, *, buttons: bool) -> list[dict[str, Any]]:
    """The blocks of a message; ``buttons`` where somebody listens to them."""
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(message.title, MAX_HEADER)}]
    for heading, lines in sections(message):
        # A heading is ours, and the only mrkdwn.
        blocks.append({
            "type": "context", "elements": [{"type": "mrkdwn", "text": f"*{heading}*"}],
        })  # fmt: skip
        blocks.append({"type": "section", "text": _plain("\n".join(lines), MAX_SECTION)})
    if buttons and message.incident:
        blocks.append({
            "type": "actions",
            "elements": [
                {
                    "type": "button", "action_id": f"linnix_{verdict}", "value": message.incident,
                    "text": _plain(word, 75),
                }
                for verdict, word in _BUTTONS.items()
            ],
        })  # fmt: skip
    return blocks


def fallback_of(message: Message) -> str:
    """One line for notifications, and for programs that show no blocks."""
    return escaped(f"{message.title}: {message.what}", MAX_FALLBACK)


def news_of(message: Message) -> str | None:
    """What a thread is told of a change; None where changing the message is enough."""
    words = _NEWS.get(message.change)
    if words is None:
        return None
    return escaped(words.format(message.when if message.change == "resolved" else message.what),
                   MAX_SECTION)  # fmt: skip
