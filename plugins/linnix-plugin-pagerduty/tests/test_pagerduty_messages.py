"""What an alert says; the examples are made by the code, LINNIX_GOLDEN=write writes them anew."""

import json
import os
from pathlib import Path

import pytest

from linnix_plugin_notify.testing import HOSTILE, example_messages
from linnix_plugin_pagerduty import event_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(example_messages()))
def test_every_message_reads_as_in_the_examples(name):
    event = event_of(example_messages()[name])
    text = json.dumps(event, indent=2, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("LINNIX_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def texts_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_whatever_a_process_is_called_every_text_is_one_printable_line(name):
    for message in example_messages(name).values():
        for text in texts_of(event_of(message)):
            assert text.isprintable(), text
            assert len(text) <= 1024
            json.dumps(text).encode()
