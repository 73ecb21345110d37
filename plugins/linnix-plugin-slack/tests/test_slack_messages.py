"""What Slack shows; the examples are made by the code, LINNIX_GOLDEN=write writes them anew."""

import html
import json
import os
from pathlib import Path

import pytest

from linnix_plugin_notify.testing import HOSTILE, example_messages
from linnix_plugin_slack import escaped, fallback_of, rendered
from linnix_plugin_slack.blocks import news_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(example_messages()))
def test_every_message_reads_as_in_the_examples(name):
    message = example_messages()[name]
    shown = {
        "text": fallback_of(message),
        "blocks": rendered(message, buttons=True),
        "thread": news_of(message),
    }
    text = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("LINNIX_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def plain_texts(blocks):
    for block in blocks:
        for part in (block.get("text"), *block.get("elements", ())):
            if isinstance(part, dict) and part.get("type") == "plain_text":
                assert part["emoji"] is False
                yield part["text"]
            elif isinstance(part, dict) and part.get("type") == "mrkdwn":
                # Ours alone: a heading.
                assert part["text"].strip("*").replace(" ", "").isalpha()


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_whatever_a_process_is_called_it_is_plain_text(name):
    for message in example_messages(name).values():
        blocks = rendered(message, buttons=True)
        texts = [*plain_texts(blocks), fallback_of(message), news_of(message) or ""]
        for text in texts:
            # No control character of Slack's is left, and none of a terminal's.
            assert "<" not in text
            assert ">" not in text
            assert html.escape(html.unescape(text), quote=False) == text
            assert text.replace("\n", "").isprintable()
            assert len(text) <= 3000
        assert len(blocks) <= 50
        assert len(blocks[0]["text"]["text"]) <= 150
        json.dumps(blocks).encode()


def test_no_entity_is_cut_in_half():
    for limit in range(1, 40):
        text = escaped("<" * 20, limit)
        assert len(text) <= limit
        assert text.replace("&lt;", "").strip("…") == ""
    assert escaped("a<b", 6) == "a&lt;b"
    assert escaped("abc", 3) == "abc"
