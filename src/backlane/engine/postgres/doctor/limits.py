"""Limits: from where on the doctor speaks of a state."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When a state is worth a warning. Tests lower them; nobody else has to."""

    long_seconds: float = 60  # of a transaction: claims keep their speed, all else does not
    idle_seconds: float = 15  # of one that holds our rows and does nothing
    pinned: int = 1_000_000  # transactions that a standby or slot keeps the rows of
    log_bytes: int = 1 << 30  # of write-ahead log that a slot nobody reads keeps
    dead_rows: int = 50_000  # of a table that claims scan
    notify_share: float = 0.1  # of the server's queue of notifications
    connection_share: float = 0.9  # of the connections that are allowed
    skew_ms: int = 1_000  # between this machine's clock and the server's
    ping_seconds: float = 2.0  # until a notification of our own must have come


LIMITS = Limits()
