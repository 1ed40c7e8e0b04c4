"""Text that PostgreSQL can keep: what a text column refuses is escaped, and nothing lost.

A text column takes neither NUL nor half a surrogate pair. U+001A ("substitute") goes
before what stands for them, and for itself; equal texts stay equal, and others differ.
"""

from __future__ import annotations

import re

_MARK = "\x1a"
_REFUSED = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def stored(text: str) -> str:
    """Return text as it is stored."""
    if text.isprintable():  # never so with any of what is refused
        return text
    return _REFUSED.sub(lambda it: f"{_MARK}{ord(it[0]):04x}", text)


def loaded(text: str) -> str:
    """Return text as it was before it was stored."""
    if _MARK not in text:
        return text
    return _ESCAPED.sub(lambda it: chr(int(it[1], 16)), text)


def stored_or_none(text: str | None) -> str | None:
    """Like `stored`, of text that may be missing."""
    return None if text is None else stored(text)


def loaded_or_none(text: str | None) -> str | None:
    """Like `loaded`, of text that may be missing."""
    return None if text is None else loaded(text)
