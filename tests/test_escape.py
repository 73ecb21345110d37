"""Text that a process chose is hostile wherever it is shown: `printable` and `valid`.

Architecture, section 5.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnix_core import printable
from linnix_core.escape import valid

# Every code point, lone surrogates included, and often the bad ones.
bad = st.sampled_from(
    "\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\xad\u061c\u115f\u180e\u200b\u200e\u2028\u2029\u202e\u2066"
    "\u2069\u3164\ufe0f\ufeff\uffa0\ufffb\ud800\udcff\U000e0041\U0001bca0\U0001d173\U00013430"
)
hostile = st.lists(st.characters(exclude_categories=[]) | bad, max_size=60).map("".join)

# Bidirectional controls (UAX 9): what could make text read in another order than it is.
DIRECTION = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def is_harmless(character: str) -> bool:
    # Cc controls, Cf formats (bidirectional, zero width, tags), Cs surrogates, Zl and Zp lines.
    return (
        unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        and unicodedata.bidirectional(character) not in DIRECTION
    )


@settings(deadline=None, max_examples=500)
@given(text=hostile)
def test_what_is_shown_has_no_controls_no_formats_and_one_line(text):
    shown = printable(text)
    assert all(map(is_harmless, shown))
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_no_code_point_gets_through_that_could_steer_a_reader():
    every = map(chr, range(0x110000))
    assert [hex(ord(c)) for c in every if not all(map(is_harmless, printable(c)))] == []


# Letters and marks that show nothing.
FILLERS = "\u115f\u1160\u3164\uffa0"
SELECTORS = "\u034f\u17b4\u180b\u180f\ufe00\ufe0f\U000e0100\U000e01ef"


def test_characters_that_show_nothing_are_written_out():
    for blank in FILLERS + SELECTORS:
        assert printable(f"a{blank}b").isascii()


@settings(deadline=None, max_examples=300)
@given(text=hostile, limit=st.integers(1, 80))
@example(text="\x1b" * 10, limit=5)
def test_it_keeps_within_the_limit_and_says_that_it_cut(text, limit):
    shown = printable(text, limit)
    whole = printable(text)
    assert len(shown) <= limit
    if len(whole) <= limit:
        assert shown == whole
    else:
        assert shown.endswith("…")
        assert whole.startswith(shown[:-1])


def test_a_limit_of_nothing_shows_nothing_but_the_cut():
    assert len(printable("abc", 0)) <= 1
    assert printable("", 0) == ""


def test_a_huge_text_is_cut_before_it_is_looked_at():
    assert printable("\x00" * 10_000_000, 8) == "\\x00\\x0…"


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40))
def test_letters_digits_and_signs_of_any_script_stay_as_they_are(text):
    visible = text.translate(dict.fromkeys(map(ord, FILLERS)))
    assert printable(visible) == visible


@settings(deadline=None, max_examples=200)
@given(text=hostile)
def test_what_is_shown_can_be_shown_again(text):
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("evil\x1b[2J", r"evil\x1b[2J"),
        ("two\nlines\r", r"two\x0alines\x0d"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("caf\udce9", r"caf\udce9"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("Grüße, 世界, مرحبا", "Grüße, 世界, مرحبا"),
        ("naïve 🙂", "naïve 🙂"),
    ],
)
def test_what_it_looks_like(text, shown):
    assert printable(text) == shown


# --- valid --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=[]), max_size=40))
def test_valid_text_can_be_encoded_and_is_left_alone_when_it_could(text):
    made = valid(text)
    made.encode()
    assert valid(made) == made
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert made == text


@settings(deadline=None, max_examples=300)
@given(raw=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_written_out_and_the_text_between_is_kept(raw):
    assert valid(raw.decode("utf-8", "surrogateescape")) == raw.decode("utf-8", "backslashreplace")
