"""What a queue is called at SQS: letters, digits, `_` and `-`, eighty of them at most.

Ours have dots and more, so some are written otherwise; no two become one. A name that
would be too long keeps its beginning, and ends with a digest of the whole.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 80
FIFO = ".fifo"

# `_` begins what is written otherwise. None of these starts as another does, nor as `_0`
# and `_dead` do, so that every name is read in one way only.
_WRITTEN = {".": "-", "-": "_-", "_": "__", ":": "_c", "~": "_t"}
_READ = {written: sign for sign, written in _WRITTEN.items()}
_TOKEN = re.compile(r"_x[0-9a-f]+_|_[-_ct]|-|[A-Za-z0-9]")
DEAD = "_dead"  # what the redrive policy of a queue moves is kept there
_DIGEST = 20  # hex digits


def sqs_name(queue: str, *, fifo: bool = False) -> str:
    """Return what a broker's queue of ours is called at SQS."""
    return _name(queue, FIFO if fifo else "")


def dead_name(queue: str, *, fifo: bool = False) -> str:
    """Return what the queue is called that takes what was received too often."""
    return _name(queue, DEAD + (FIFO if fifo else ""))


def queue_of(name: str) -> str | None:
    """Return the queue that has this name at SQS; None where it does not tell."""
    name = name.removesuffix(FIFO)
    tokens = _TOKEN.findall(name)
    if "".join(tokens) != name:
        return None
    return "".join(_read(token) for token in tokens)


def _written(sign: str) -> str:
    if sign.isascii() and sign.isalnum():
        return sign
    return _WRITTEN.get(sign) or f"_x{ord(sign):x}_"


def _read(token: str) -> str:
    if token.startswith("_x"):
        return chr(int(token[2:-1], 16))
    return _READ.get(token, token)


def _name(queue: str, suffix: str) -> str:
    signs = [_written(sign) for sign in queue]
    room = LONGEST - len(suffix)
    if sum(map(len, signs)) > room:
        digest = f"_0{hashlib.sha256(queue.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGEST]}"
        while sum(map(len, signs)) > room - len(digest):
            signs.pop()  # whole signs: half of one, and the digest would be read as its rest
        signs.append(digest)
    return "".join(signs) + suffix
