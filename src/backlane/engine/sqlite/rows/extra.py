"""Extra: what only few jobs have, packed into one column of theirs.

Most jobs have none of it, and their column is null: nothing is read or decoded of them.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from backlane.model.job import DEFAULT_RULE, Edge, Job, JobRecord, KeyRule
from backlane.model.limit import Use


class Extra(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The rarely used fields of a job, in the order of how often they are."""

    uses: tuple[Use, ...] = ()
    after: tuple[Edge, ...] = ()
    rule: KeyRule = DEFAULT_RULE
    tags: tuple[str, ...] = ()
    keeps: bool = False  # its record or its result, as its policy says


NO_EXTRA = Extra()

_decoder = msgspec.msgpack.Decoder(Extra)
_encoder = msgspec.msgpack.Encoder()


def encode_extra(job: Job | JobRecord) -> bytes | None:
    """Return what is stored of a job's rare fields; None: it has none of them."""
    keeps = job.policy.keeps_latest or job.policy.keep_ms is not None
    if not (job.uses or job.after or job.tags or keeps) and job.rule == DEFAULT_RULE:
        return None
    return _encoder.encode(Extra(job.uses, job.after, job.rule, job.tags, keeps))


@lru_cache(maxsize=4096)
def decode_extra(stored: bytes | None) -> Extra:
    """Return the rare fields from their stored form; damaged ones read as none.

    A person must be able to see the job, and a worker to pass it by.
    """
    if stored is None:
        return NO_EXTRA
    try:
        return _decoder.decode(stored)
    except (msgspec.MsgspecError, TypeError):
        return NO_EXTRA
