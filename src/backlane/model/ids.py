"""Job ids: UUIDv7, made by the client, so that sending one twice is the same job.

RFC 9562 section 5.7: 48 bits of Unix milliseconds, then (method 2 of section 6.2)
a 26-bit counter seeded at random each millisecond, then 48 random bits. Ids of one
process strictly increase, whatever the wall clock does, and inserts stay at the end
of the index.
"""

from __future__ import annotations

import os
import threading
import uuid
from datetime import UTC, datetime, timedelta

from backlane.errors import BadOption

_MARKS = 0x7 << 28 | 0b10 << 14  # version and variant, within the first 80 bits
_COUNTER_BITS = 26
_DERIVED = (1 << 80) - 1 & ~(0xF << 76 | 0b11 << 62)  # the bits of an id that a digest gives
_COUNT_MASK = (1 << 20) - 1  # of ids derived from one name: 54 bits of the digest stay
_SEED_MASK = (1 << (_COUNTER_BITS - 1)) - 1  # the top bit stays free, as room to count in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_POOL_BYTES = 4096  # drawn at once: each draw lets go of the GIL, which costs more than it

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_pool = b""  # random bytes, of which those before _used are spent
_used = 0


def _leave_what_is_the_parents() -> None:
    """Give a forked child its own lock and random bytes.

    The parent's lock may be held, and would be for ever here; with the parent's bytes
    both would make the same ids.
    """
    global _lock, _pool
    _lock, _pool = threading.Lock(), b""


os.register_at_fork(after_in_child=_leave_what_is_the_parents)


def new_id(wall_ms: int) -> bytes:
    """Return a fresh id of 16 bytes, later than every id this process made before."""
    return new_ids(wall_ms, 1)[0]


def new_ids(wall_ms: int, number: int) -> list[bytes]:
    """Return `number` fresh ids in increasing order, at a fraction of the price of single ones."""
    global _last_ms, _counter  # noqa: PLW0603 - monotonic within a process is the point
    made = []
    with _lock:
        random = _random(6 * number + 4)
        if wall_ms > _last_ms:
            _last_ms = wall_ms
            _counter = int.from_bytes(random[-4:]) & _SEED_MASK
        for at in range(0, 6 * number, 6):
            _counter += 1
            if _counter >> _COUNTER_BITS:  # spent: borrow from the next millisecond
                _last_ms += 1
                _counter = 0
            head = _last_ms << 32 | _MARKS | (_counter >> 14) << 16 | (_counter & 0x3FFF)
            made.append(head.to_bytes(10) + random[at : at + 6])
    return made


def _random(size: int) -> bytes:
    """Return random bytes that nobody was given before; the lock is held."""
    global _pool, _used  # noqa: PLW0603 - as above
    if _used + size > len(_pool):
        _pool, _used = os.urandom(max(size, _POOL_BYTES)), 0
    _used += size
    return _pool[_used - size : _used]


def derived_id(wall_ms: int, *names: str | bytes) -> bytes:
    """Return the id that these names have at a moment: the same wherever it is made."""
    import hashlib  # few ids are derived, and an import of it takes 2 ms

    digest = hashlib.blake2b(digest_size=10)
    for name in names:
        digest.update(_framed(name))
    return _derived(_head(wall_ms), digest.digest())


def derived_ids(wall_ms: int, name: str | bytes, number: int) -> list[bytes]:
    """Return `number` ids derived from that name, in increasing order.

    They differ in their last bits alone, so that a store finds room for all of them at one
    place of its index; the bits in front of these tell them from those of other names.
    """
    first = int.from_bytes(derived_id(wall_ms, name)) & ~_COUNT_MASK
    if number > _COUNT_MASK:
        raise ValueError(f"{number} ids are more than the {_COUNT_MASK} that a name can have")
    return [(first + count).to_bytes(16) for count in range(number)]


def _framed(name: str | bytes) -> bytes:
    part = name.encode() if isinstance(name, str) else name
    return len(part).to_bytes(4) + part


def _head(wall_ms: int) -> int:
    """Return what is not derived of such an id: its time, version and variant."""
    return max(0, min(wall_ms, (1 << 48) - 1)) << 80 | 0x7 << 76 | 0b10 << 62


def _derived(head: int, digest: bytes) -> bytes:
    return (int.from_bytes(digest) & _DERIVED | head).to_bytes(16)


def id_ms(job_id: bytes) -> int:
    """Return the Unix milliseconds at which the id was made."""
    return int.from_bytes(job_id[:6])


def id_time(job_id: bytes) -> datetime:
    """Return the moment at which the id was made."""
    return _EPOCH + timedelta(milliseconds=id_ms(job_id))


def parse_id(given: uuid.UUID | str | bytes) -> bytes:
    """Return the 16 bytes of an id in any public spelling.

    Raises:
        BadOption: it is not a UUIDv7, so it cannot be a job's id.
    """
    try:
        if isinstance(given, bytes):
            made = uuid.UUID(bytes=given)
        elif isinstance(given, str):
            made = uuid.UUID(given)
        else:
            made = given
    except ValueError as error:
        raise BadOption(f"{given!r} is not a job id: expected a UUID") from error
    if not isinstance(made, uuid.UUID):
        raise BadOption(f"{given!r} is not a job id: expected a UUID, or its text")
    if made.version != 7:
        raise BadOption(f"{made} is not a job id: expected a UUID of version 7")
    return made.bytes
