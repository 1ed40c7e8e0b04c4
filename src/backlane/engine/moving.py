"""Moving: whole jobs and settings, as one engine hands them to another.

What `find` shows of a job is for people; this is all that has to be kept of it so that
it goes on elsewhere as if nothing had happened: same place, same attempts, next token.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.model.breaker import Breaker
from backlane.model.job import JobRecord
from backlane.model.queue import QueueRecord


class Whole(msgspec.Struct, frozen=True):
    """A job with all that its engine keeps of it; body, result and errors included."""

    record: JobRecord
    crashes: int = 0
    parked_ms: int | None = None  # wall clock: since when no worker knows its task


class Repeat(msgspec.Struct, frozen=True):
    """An idempotency key that was used."""

    scope: str
    name: str
    job: bytes
    print: bytes
    until_ms: int  # wall clock


class Part(msgspec.Struct, frozen=True):
    """Some jobs in the order of their append; ask again with `cursor` until it is None.

    Used idempotency keys come with the last parts, behind all jobs.
    """

    jobs: list[Whole] = []
    repeats: list[Repeat] = []
    cursor: bytes | None = None


class Settings(msgspec.Struct, frozen=True):
    """What a store knows beside jobs."""

    queues: list[QueueRecord] = []  # settings and lifetime counts; their depth is of no meaning
    resources: dict[str, Breaker] = {}
    secret: bytes = b""  # what tickets are signed with
    forgotten_ms: int = -1  # the newest id that was pruned: older ones may have run


class Seal(msgspec.Struct, frozen=True):
    """A store that is being moved, or was: it takes no jobs and gives none any more."""

    to: str  # where to, as may be shown: no password
    since_ms: int = 0  # by the store's clock; what is given here is not looked at
    is_done: bool = False  # all has moved: come back never, but go there


class Moving(Protocol):
    """The verbs of a move. Each makes a fresh plan; what it does, it does atomically."""

    def seal(self, seal: Seal | None) -> Plan[Seal | None]:
        """Seal the store, or open it again (None); return how it was before.

        A sealed store refuses every append (limit "moving"; duplicates are answered all
        the same), claims nothing and amends nothing; whatever runs is extended, noted and
        settled as ever. What listens is rung.
        """

    def sealed(self) -> Plan[Seal | None]:
        """Return whether the store is sealed, and since when."""

    def dump(
        self, limit: int = 1_000, cursor: bytes | None = None, *, history: bool = False
    ) -> Plan[Part]:
        """Read whole jobs that wait, in the order of their append; and with `history` those
        that are final. Running ones are passed over. Reads at most 10,000 rows a call."""

    def restore(self, part: Part) -> Plan[list[bytes]]:
        """Take whole jobs in, in the order given; return the ids that were new.

        A known id is left as it is, so a part may be restored twice. Bounds do not apply;
        of a key that another job holds, the holder keeps it. Their waiting jobs' queues
        are rung.
        """

    def dump_settings(self) -> Plan[Settings]:
        """Read what is known beside jobs."""

    def restore_settings(self, settings: Settings) -> Plan[None]:
        """Take settings in: they go before what the store had of the same queues and
        resources. Lifetime counts are added to its own only where it knew no such queue."""
