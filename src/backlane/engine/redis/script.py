"""Scripts: a verb each, of the Lua files beside this one, and the commands that run them."""

from __future__ import annotations

import hashlib
from importlib.resources import files

_FOLDER = files("backlane.engine.redis") / "lua"


class Script:
    """The text of one verb, behind the parts that it needs, and the digest that names it."""

    __slots__ = ("_heads", "digest", "name", "text")

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        self.text = "\n".join((_FOLDER / f"{it}.lua").read_text("utf-8") for it in (*parts, name))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self._heads: dict[str, bytes] = {}

    def by_digest(self, key: str, payload: bytes) -> bytes:
        """Return the command that runs it where the server knows it."""
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = _head(b"EVALSHA", self.digest, key)
        return b"%b$%d\r\n%b\r\n" % (head, len(payload), payload)

    def in_full(self, key: str, payload: bytes) -> bytes:
        """Return the command that runs it where the server does not, and makes it known."""
        head = _head(b"EVAL", self.text, key)
        return b"%b$%d\r\n%b\r\n" % (head, len(payload), payload)


def _head(verb: bytes, script: str, key: str) -> bytes:
    words = (verb, script.encode(), b"1", key.encode())
    return b"*5\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
