"""Extra: what few jobs have, packed into one column; nothing for all others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from backlane.engine.postgres.store.text import loaded, stored
from backlane.model.job import DEFAULT_RULE, Edge, Job, JobRecord, KeyRule, When
from backlane.model.limit import Use

HOLDS = {"finished": 0, "started": 1, "succeeded": 2}  # of keys, as they are stored
HOPES = {When.ENDED: 0, When.SUCCEEDED: 1, When.FAILED: 2}  # of edges
LATEST, EDGES, KEPT = 1, 2, 4  # bits of `traits`: what is to be done when such a job ends


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What is packed. More is added behind only."""

    rule: KeyRule = DEFAULT_RULE
    uses: tuple[Use, ...] = ()
    after: tuple[Edge, ...] = ()
    tags: tuple[str, ...] = ()


NOTHING = Extra()


def packed(job: Job | JobRecord) -> bytes | None:
    """Return what is stored of a job; None: it has nothing of it."""
    if not (job.uses or job.after or job.tags or job.rule is not DEFAULT_RULE):
        return None
    uses = tuple(replace(use, part=stored(use.part)) for use in job.uses)
    extra = Extra(job.rule, uses, job.after, tuple(map(stored, job.tags)))
    return None if extra == NOTHING else msgspec.msgpack.encode(extra)


@lru_cache(maxsize=1024)
def unpacked(kept: bytes | None) -> Extra:
    """Return what few jobs have; what is damaged reads as nothing: a person must be able to
    see the job."""
    try:
        found = NOTHING if kept is None else msgspec.msgpack.decode(kept, type=Extra)
    except msgspec.MsgspecError:
        return NOTHING
    if not (found.uses or found.tags):
        return found
    uses = tuple(replace(use, part=loaded(use.part)) for use in found.uses)
    return replace(found, uses=uses, tags=tuple(map(loaded, found.tags)))


def traits(job: Job | JobRecord) -> int | None:
    """Return what is to be done when a job ends, as bits; None: it is a plain one."""
    policy = job.policy
    return (
        LATEST * policy.keeps_latest | EDGES * bool(job.after) | KEPT * (policy.keep_ms is not None)
    ) or None


def by_job(after: Sequence[Edge]) -> dict[bytes, When]:
    """Return edges by job: of several to the same one the first counts."""
    found: dict[bytes, When] = {}
    for edge in after:
        found.setdefault(edge.job, edge.when)
    return found
