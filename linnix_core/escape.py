"""Text that a process chose, made safe to show on one line.

Names, arguments and paths of processes are hostile: they can hold terminal controls,
line breaks, marks that reverse the reading direction, and bytes that are no text.
"""

from __future__ import annotations

import re

__all__ = ["printable", "valid"]

# C0 and C1 controls, DEL, line and paragraph separators, lone surrogates, every format
# character (category Cf: zero-width, bidirectional and tag characters, Unicode TR 36), and
# what else shows nothing: fillers and variation selectors.
_HOSTILE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2"
    "\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164"
    "\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb\\ud800-\\udfff\\U000110bd\\U000110cd"
    "\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]"
)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def printable(text: str, limit: int | None = None) -> str:
    r"""One line that a terminal, a log or a page shows as it is, at most ``limit`` long.

    >>> printable("evil\x1b[2J\nname")
    'evil\\x1b[2J\\x0aname'
    >>> printable("a long name", limit=6)
    'a lon…'
    """
    if limit is not None and len(text) > limit * 4:
        # Escapes only ever lengthen: cutting first keeps huge arguments cheap.
        text = text[: limit * 4]
    if not (text.isascii() and text.isprintable()):
        text = _HOSTILE.sub(_escape, text)
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    return text


def valid(text: str) -> str:
    r"""The same text, encodable as UTF-8: bytes that were none are written as ``\xff``.

    >>> valid(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'caf\\xe9'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape" if _only_bytes(text) else "backslashreplace")
        return raw.decode("utf-8", "backslashreplace")
    return text


def _only_bytes(text: str) -> bool:
    """Whether every lone surrogate stands for a byte, as ``surrogateescape`` makes them."""
    return not any("\ud800" <= c <= "\udc7f" or "\udd00" <= c <= "\udfff" for c in text)
