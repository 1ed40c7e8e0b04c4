"""Scripts: a verb each, of the Lua files in `lua/`, and the commands that run them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

_FOLDER = files("backlane.engine.redis") / "lua"
_NEEDED = {  # what parts come with
    "moves": ("gates", "fairness", "keys", "newest", "moves", "edges"),
    "insert": ("making", "insert"),
    "limiting": ("making", "limiting"),
    "select": ("sheets", "select"),
}
# Parts that make little by themselves: with the next one they are one level of `nested`.
_JOINED = {"gates", "fairness", "keys", "newest", "waking"}
_CONSTANTS = re.compile(
    r"^local ([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*) = ([\d^*, ]+)(?: --.*)?$", re.MULTILINE
)
_WORDS = re.compile(r"--[^\n]*|'[^'\n]*'|\"[^\"\n]*\"|\b[A-Z][A-Z_]+\b")


class Script:
    """The text of one verb, behind the parts that it needs, and the digest that names it."""

    __slots__ = ("_heads", "digest", "name", "text")

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        names = [it for part in (*parts, name) for it in _NEEDED.get(part, (part,))]
        levels = [""]
        for it in dict.fromkeys(names):
            levels[-1] += (_FOLDER / f"{it}.lua").read_text("utf-8")
            if it not in _JOINED:
                levels.append("")
        self.text = folded(nested(levels[:-1]))
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


def nested(parts: Sequence[str]) -> str:
    """Return a script of parts each of which sees what those before it have made.

    Lua 5.1 looks for each variable of the same level that a new function needs one by one,
    so that in one long file the last functions took as long to make as all the others.
    """
    return "\nreturn (function()\n".join(parts) + "\nend)()" * (len(parts) - 1)


def folded(text: str) -> str:
    """Return a script with numbers in place of the names in capitals that stand for them.

    Lua 5.1 has no constants: each would be a variable, which every function of every call
    looks up anew when it is made. That took as long as a small script's work.
    """
    numbers: dict[str, str] = {}

    def declare(found: re.Match[str]) -> str:
        names, values = found[1].split(", "), found[2].split(", ")
        numbers.update(zip(names, (f"({it.strip()})" for it in values), strict=True))
        return ""

    def put_in(found: re.Match[str]) -> str:
        word = found[0]
        return "" if word.startswith("--") else numbers.get(word, word)

    return _WORDS.sub(put_in, _CONSTANTS.sub(declare, text))


def _head(verb: bytes, script: str, key: str) -> bytes:
    words = (verb, script.encode(), b"1", key.encode())
    return b"*5\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
