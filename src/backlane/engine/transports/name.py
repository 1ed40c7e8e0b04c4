"""Names of a broker's own queues, made of ours: one for each queue and lane.

They start with a prefix, so that applications can share a broker, and with the version of
our topology, so that a later one stands beside it while workers of both are there.
"""

from __future__ import annotations

from backlane.errors import BadOption
from backlane.model.job import Lane
from backlane.model.queue import NAME

PREFIX = "backlane"
VERSION = 1

# No queue of ours can have it in its name, so no two of ours are one there.
_EXCLUSIVE = "~exclusive"


def physical(prefix: str, queue: str, lane: Lane = Lane.SHARED) -> str:
    """Return what a queue's lane is called at the broker."""
    return f"{prefix}.{VERSION}.{queue}{_EXCLUSIVE if lane is Lane.EXCLUSIVE else ''}"


def logical(prefix: str, name: str) -> tuple[str, Lane] | None:
    """Return the queue and lane that a broker's queue stands for; None: it is not ours."""
    start = f"{prefix}.{VERSION}."
    if not name.startswith(start):
        return None
    queue = name.removeprefix(start)
    lane = Lane.EXCLUSIVE if queue.endswith(_EXCLUSIVE) else Lane.SHARED
    queue = queue.removesuffix(_EXCLUSIVE)
    return (queue, lane) if NAME.fullmatch(queue) else None


def checked_prefix(text: str) -> str:
    """Return a prefix that can stand before names.

    Raises:
        BadOption: it is not 1 to 32 letters, digits, `_` or `-`.
    """
    if not 1 <= len(text) <= 32 or not text.replace("-", "").replace("_", "").isalnum():
        raise BadOption(f"prefix={text!r} cannot be: use 1 to 32 letters, digits, '_' or '-'")
    if not text.isascii():
        raise BadOption(f"prefix={text!r} cannot be: use 1 to 32 ASCII letters, digits, '_', '-'")
    return text
