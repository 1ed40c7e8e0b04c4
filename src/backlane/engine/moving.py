"""Moving: whole jobs and settings, as one engine hands them to another.

What `find` shows of a job is for people; this is all that has to be kept of it so that
it goes on elsewhere as if nothing had happened: same place, same attempts, next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from backlane.engine.plan import Plan
from backlane.engine.recalling import Latest
from backlane.engine.scheduling import ScheduleRecord
from backlane.model.breaker import Breaker
from backlane.model.job import Edge, JobRecord, State, Step
from backlane.model.limit import LimitRecord, Use
from backlane.model.queue import QueueRecord


class Whole(msgspec.Struct, frozen=True):
    """A job with all that its engine keeps of it; body, result and errors included."""

    record: JobRecord
    crashes: int = 0
    parked_ms: int | None = None  # wall clock: since when no worker knows its task
    open: tuple[Edge, ...] = ()  # edges it still waits for, `Awaiting` included
    turns: tuple[Use, ...] = ()  # that it holds
    steps: tuple[Step, ...] = ()
    waited: tuple[bytes, ...] = ()  # jobs beyond `after` that it waited for: they stay for it


class Repeat(msgspec.Struct, frozen=True):
    """An idempotency key that was used."""

    scope: str
    name: str
    job: bytes
    print: bytes
    until_ms: int  # wall clock


class Part(msgspec.Struct, frozen=True):
    """Some jobs in the order of their append; ask again with `cursor` until it is None.

    Used idempotency keys come with the last parts, behind all jobs. A part may be short.
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
    limits: list[LimitRecord] = []  # settings; what runs and waits is of no meaning
    schedules: list[ScheduleRecord] = []
    latest: dict[str, Latest] = {}  # by task


class Seal(msgspec.Struct, frozen=True):
    """A store that is being moved, or was: it takes no jobs and gives none any more.

    The store keeps all of it and looks at `to` and `is_done` alone.
    """

    to: str  # where to, as may be shown: no password
    since_ms: int = 0  # by the store's clock; what is given here is not looked at
    is_done: bool = False  # all has moved: come back never, but go there
    move: bytes = b""  # which move it is: drawn once, kept when it is taken up again
    mover: bytes = b""  # who carries it out now; an earlier one that sees this stops
    has_settings: bool = False  # what is known beside jobs is over there already

    @property
    def why_not(self) -> str:
        """Why a job is left as it is."""
        return f"the store {'was' if self.is_done else 'is being'} moved to {self.to}"


PART_BYTES = 16 * 1024 * 1024  # of bodies, headers and results that a part brings, about
PART_ROWS = 10_000  # that a dump looks at, at most


class Moving(Protocol):
    """The verbs of a move. Each makes a fresh plan; what it does, it does atomically."""

    def seal(self, seal: Seal | None) -> Plan[Seal | None]:
        """Seal the store, or open it again (None); return how it was before.

        A sealed store refuses every append of something new (limit "moving"; duplicates
        are answered all the same), claims nothing and amends nothing but asks running jobs
        to stop. Whatever runs is extended, noted and settled as ever, leases lapse, and
        until the move `is_done` work born inside a job (`parent`) is taken in. One that is
        sealed already keeps its `since_ms`. What listens to a queue is rung.
        """

    def sealed(self) -> Plan[Seal | None]:
        """Return whether the store is sealed, and since when."""

    def dump(
        self, limit: int = 1_000, cursor: bytes | None = None, *, final: Sequence[State] = ()
    ) -> Plan[Part]:
        """Read whole jobs that wait, in the order of their append; and those that ended in
        one of the `final` states, or that a job which has not ended waited for. Running ones
        are passed over, and those that wait for one that runs: its end is followed here.
        Reads at most `PART_ROWS` rows a call and stops behind `PART_BYTES`."""

    def discard(self, jobs: Sequence[tuple[bytes, int]]) -> Plan[list[bytes]]:
        """Forget jobs (id, revision) that are elsewhere by now; return those that were not.

        Only in a sealed store, and only what is as it was dumped: not running, the same
        revision. It does not count as pruned, nor in any lifetime count.
        """

    def restore(self, part: Part, move: bytes = b"") -> Plan[list[bytes]]:
        """Take whole jobs in, in the order given; return the ids that were new.

        A known id is left as it is, so a part may be restored twice. So is one that the
        latest part of this `move` had: it may have run here and have been forgotten since.
        (A mover takes up again at the part it had not discarded yet, so the latest is
        enough; an empty part ends the memory.) Bounds and `forgotten_ms` do not apply; of
        a key that another job holds, the holder keeps it; a queue that is not known is
        made with the default bounds, for messages if the job has no task. Nothing is
        counted as appended or ended. An open edge stays open until its job comes and has
        ended, or ends here. Of an idempotency key that counts here, what it
        stands for stays. The queues of waiting jobs are rung.
        """

    def dump_settings(self) -> Plan[Settings]:
        """Read what is known beside jobs."""

    def restore_settings(self, settings: Settings) -> Plan[None]:
        """Take settings in: they go before what the store had of the same queues and
        resources, and its secret; the later `forgotten_ms` counts. Lifetime counts are
        taken (as of priority 5) only where it knew no such queue. A queue that holds
        another kind here is left as it is. Schedules go on from where they were; of the
        latest results the one of the greater id stays."""
