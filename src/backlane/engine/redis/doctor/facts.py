"""Facts: what a server tells of itself, for `diagnose`."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field

from backlane.engine.redis.store.address import Address
from backlane.engine.redis.store.connection import Connection
from backlane.engine.redis.store.faults import Said

ROUND_TRIPS = 9
SETTINGS = (
    "maxmemory",
    "maxmemory-policy",
    "appendonly",
    "appendfsync",
    "save",
    "stop-writes-on-bgsave-error",
    "maxclients",
    "min-replicas-to-write",
    "min-slaves-to-write",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """A server at a moment."""

    place: str
    address: Address
    info: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] | None = None  # None: it does not tell
    cluster: dict[str, str] = field(default_factory=dict)
    replicas: tuple[dict[str, str], ...] = ()
    latency_ms: float = 0.0  # of a round trip, the median of some
    ahead_ms: float = 0.0  # its clock before ours
    doubt_ms: float = 0.0  # how much of that may be the way there
    hears: str | None = None  # why no wake-ups can be heard; None: they can
    layout: int | None = None  # of the namespace; None: it is empty

    def number(self, name: str) -> int:
        """A number of INFO, 0 where it is not told."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0

    def setting(self, name: str) -> str:
        return (self.settings or {}).get(name, "")


def look(connection: Connection, address: Address) -> Facts:
    """Ask a server for all that `diagnose` judges.

    Raises:
        Said: it does not even answer ECHO.
        OSError: the connection was lost.
    """
    took, ahead = _times(connection)
    info = _info(connection)
    return Facts(
        place=connection.place,
        address=address,
        info=info,
        settings=_settings(connection),
        cluster=_cluster(connection, info),
        replicas=tuple(_replicas(info)),
        latency_ms=took,
        ahead_ms=ahead,
        doubt_ms=took,
        hears=_hears(connection, address),
        layout=_layout(connection, address),
    )


def fields(text: bytes) -> dict[str, str]:
    """Return what INFO tells by name."""
    lines = (it.partition(":") for it in text.decode("utf-8", "replace").split("\r\n"))
    return {name: value for name, colon, value in lines if colon}


def _times(connection: Connection) -> tuple[float, float]:
    """The median of some round trips, and how far the server's clock is ahead of ours."""
    took = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        connection.ask("ECHO", "")  # a server that refuses writes refuses PING as well
        took.append((time.perf_counter() - started) * 1000)
    before = time.time() * 1000
    try:
        seconds, micros = connection.ask("TIME")
    except Said:
        return statistics.median(took), 0.0
    ours = (before + time.time() * 1000) / 2
    return statistics.median(took), int(seconds) * 1000 + int(micros) / 1000 - ours


def _info(connection: Connection) -> dict[str, str]:
    try:
        return fields(connection.ask("INFO"))
    except Said:
        return {}


def _settings(connection: Connection) -> dict[str, str] | None:
    try:
        flat = [it.decode() for it in connection.ask("CONFIG", "GET", *SETTINGS)]
    except Said:
        return None
    return dict(zip(flat[::2], flat[1::2], strict=True)) or None


def _cluster(connection: Connection, info: dict[str, str]) -> dict[str, str]:
    if info.get("cluster_enabled") != "1":
        return {}
    try:
        return fields(connection.ask("CLUSTER", "INFO"))
    except Said:
        return {}


def _replicas(info: dict[str, str]) -> list[dict[str, str]]:
    found = []
    for number in range(int(info.get("connected_slaves", "0"))):
        told = info.get(f"slave{number}", "")
        parts = (it.partition("=") for it in told.split(","))
        found.append({name: value for name, _, value in parts})
    return found


def _hears(connection: Connection, address: Address) -> str | None:
    """Publish to nobody, and subscribe: both need a right to the channels."""
    channel = f"{address.prefix}doctor:{os.getpid()}"
    try:
        connection.ask("SPUBLISH", channel, "")
        connection.ask("SSUBSCRIBE", channel)
        connection.ask("SUNSUBSCRIBE", channel)
    except Said as said:
        return str(said)
    return None


def _layout(connection: Connection, address: Address) -> int | None:
    try:
        told = connection.ask("HGET", f"{address.prefix}meta", "version")
    except Said:
        return None
    return int(told) if told is not None else None
