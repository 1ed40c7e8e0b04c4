"""Messages: what one process tells the others through NOTIFY, in few letters.

A payload holds at most 8,000 bytes. A job is told by the last six bytes of its id, which
are random: two that look alike cost one look too many.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable

from backlane.engine.postgres.bells.bell import TAIL_BYTES, Belfry, Kind
from backlane.engine.postgres.store.transaction import Rings

MOST_BYTES = 7_900
TAIL_LETTERS = 8  # of base64
MOST_JOBS = 4_000  # in one go; of more than that nobody is told one by one

HELLO = "h"  # somebody waits who did not before
ALL = "a"
_LETTERS = {Kind.QUEUES: "q", Kind.JOBS: "j", Kind.STARTS: "s"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


def written(rings: Rings, wanted: frozenset[Kind]) -> list[str]:
    """Return the payloads that tell of rings, as far as somebody wants to hear."""
    if len(rings.jobs) + len(rings.starts) > MOST_JOBS and wanted & {Kind.JOBS, Kind.STARTS}:
        return [ALL]
    messages = []
    if Kind.QUEUES in wanted:
        messages += _cut("q", [f"{queue}," for queue in sorted(rings.queues)])
    for kind, jobs in ((Kind.JOBS, rings.jobs), (Kind.STARTS, rings.starts)):
        if kind in wanted:
            tails = [b64encode(job[-TAIL_BYTES:]).decode() for job in jobs]
            messages += _cut(_LETTERS[kind], tails)
    return messages


def _cut(letter: str, names: Iterable[str]) -> list[str]:
    messages: list[str] = []
    current, size = [letter], 1
    for name in names:
        if size + len(name) > MOST_BYTES:
            messages.append("".join(current))
            current, size = [letter], 1
        current.append(name)
        size += len(name)
    return [*messages, "".join(current)] if size > 1 else messages


def rung(payload: str, belfry: Belfry) -> None:
    """Ring the bells that a payload of another process tells of."""
    letter, rest = payload[:1], payload[1:]
    if letter == ALL:
        belfry.ring_all()
    elif letter in _KINDS and (kind := _KINDS[letter]) is Kind.QUEUES:
        rings = Rings()
        rings.queues = set(rest.split(",")) - {""}
        belfry.ring(rings)
    elif letter in _KINDS:
        starts = range(0, len(rest) - len(rest) % TAIL_LETTERS, TAIL_LETTERS)
        try:
            tails = [b64decode(rest[at : at + TAIL_LETTERS]) for at in starts]
        except ValueError:  # not a message of ours
            return
        belfry.ring_tails(kind, tails)
