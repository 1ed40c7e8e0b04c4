"""Policies as they are stored."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from backlane.model.job import DEFAULT_POLICY, Policy


@lru_cache(maxsize=1024)
def encode_policy(policy: Policy) -> bytes | None:
    """Return a policy as it is stored: nothing for the default, which most jobs have."""
    return None if policy == DEFAULT_POLICY else msgspec.json.encode(policy)


@lru_cache(maxsize=1024)
def decode_policy(stored: bytes | None) -> Policy:
    """Return a policy from its stored form.

    Raises:
        msgspec.DecodeError: the bytes are damaged.
    """
    return DEFAULT_POLICY if stored is None else msgspec.json.decode(stored, type=Policy)
