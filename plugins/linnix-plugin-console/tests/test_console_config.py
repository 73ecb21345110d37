"""The configuration takes what makes sense and says what does not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from linnix_plugin_console import ConsoleConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "fancy"}, "mode must be one of auto, live, plain, not 'fancy'"),
        ({"refresh": 0.05}, "refresh must be at least 0.1, not 0.05"),
        ({"top": -1}, "top must be at least 0, not -1"),
        ({"summary": 0.5}, "summary must be 0 or at least 1, not 0.5"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match="must be") as refused:
        ConsoleConfig(**options)
    assert str(refused.value) == sentence


def test_zero_turns_summaries_and_the_process_table_off() -> None:
    config = ConsoleConfig(summary=0.0, top=0)
    assert (config.summary, config.top) == (0, 0)


def test_every_key_has_a_line_of_help() -> None:
    assert all(field.metadata["help"] for field in attrs.fields(ConsoleConfig))


def test_the_command_line_sets_the_mode() -> None:
    assert ConsoleConfig.ARG in attrs.fields_dict(ConsoleConfig)
