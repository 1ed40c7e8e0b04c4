"""Durability: what the server's settings promise, and how a batch can be promised more.

`fsync always`: an acknowledged write is on the server's disk. `up to 2 s`: a crash of the
machine loses at most the last two seconds (a crash of the server alone loses nothing).
`memory`: whatever was not in the last snapshot is gone with the server.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Any

import msgspec

from backlane.engine.redis.store.address import Address
from backlane.engine.redis.store.connection import Connection, pack
from backlane.engine.redis.store.faults import Said, cut_off, refused
from backlane.errors import EngineUnavailable, NotSupported, OutcomeUnknown

log = logging.getLogger("backlane.redis")

OLDEST = 7  # sharded channels, CONFIG GET of several settings at once
SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save")


class Level(StrEnum):
    """What an acknowledged write has survived, by the settings of the server alone."""

    FSYNC = "fsync always"
    SECONDS = "up to 2 s"
    MEMORY = "memory"
    UNKNOWN = "unknown"  # the server tells nobody


class Durability(msgspec.Struct, frozen=True):
    """What was found at a server, and what is waited for after each batch beside it."""

    level: Level
    settings: dict[str, str] = {}
    waits_for: str | None = None  # "fsync" | "replica"
    version: str = ""


# Logged once a process, engine and level: a reconnect brings nothing new.
_WARNINGS = {
    Level.SECONDS: "appendfsync is not 'always': a crash of its machine loses acknowledged jobs "
    "of up to 2 s; see docs/engines/redis.md",
    Level.MEMORY: "appendonly is off: a crash or restart of the server loses every job since its "
    "last snapshot; set appendonly yes, see docs/engines/redis.md",
    Level.UNKNOWN: "the server does not tell its settings (CONFIG is forbidden), and "
    "durability=unchecked asks not to mind: whether acknowledged jobs can be lost is not known",
}


def check(connection: Connection, address: Address) -> Durability:
    """Look at the settings of a server, before anything is stored there.

    Raises:
        EngineUnavailable: it may evict jobs, or does not say whether it does.
        NotSupported: it cannot do what `?durability=` asks for.
    """
    try:
        version = _version(connection)
        if version and int(version.partition(".")[0]) < OLDEST:
            raise NotSupported(
                f"{connection.place} is version {version}: use Redis 7.0 or newer, or Valkey"
            )
        settings = _settings(connection)
        wanted = address.durability
        if settings is None and wanted != "unchecked":
            raise EngineUnavailable(
                f"{connection.place} does not tell its settings (CONFIG GET and INFO are refused), "
                "so it may throw jobs away when its memory is full. Check that maxmemory-policy is "
                "noeviction and that appendonly is yes, then say so with ?durability=unchecked"
            )
        found = settings or {}
        policy = found.get("maxmemory-policy", "noeviction")
        if policy != "noeviction" and wanted != "unchecked":
            raise EngineUnavailable(
                f"{connection.place} has maxmemory-policy {policy}: it would throw jobs away when "
                "its memory is full. Set it to noeviction: redis-cli CONFIG SET maxmemory-policy "
                "noeviction, and the same in its configuration file"
            )
        waits_for = wanted if wanted in ("fsync", "replica") else None
        if waits_for:
            _check_waiting(connection, waits_for, version, found)
    except Said as said:
        raise refused(said, connection.place) from None
    except OSError as error:
        raise cut_off(error, connection.place, may_be_done=False) from error
    return Durability(_level(settings), found, waits_for, version)


def _version(connection: Connection) -> str:
    try:
        told = _fields(connection.ask("INFO", "server"))
    except Said as said:
        if said.code == "NOAUTH":  # it would refuse all the rest as well, and that says less
            raise
        return ""
    return told.get("valkey_version") or told.get("redis_version", "")


def _settings(connection: Connection) -> dict[str, str] | None:
    """The settings that decide; None where the server tells none."""
    try:
        pairs: Any = connection.ask("CONFIG", "GET", *SETTINGS)
        texts = [it.decode() for it in pairs]
        found = dict(zip(texts[::2], texts[1::2], strict=True))
        if found:
            return found
    except Said:
        pass
    try:  # managed servers forbid CONFIG, and tell the most of it here
        memory = _fields(connection.ask("INFO", "memory"))
        persistence = _fields(connection.ask("INFO", "persistence"))
    except Said:
        return None
    if "maxmemory_policy" not in memory:
        return None
    appends = "yes" if persistence.get("aof_enabled") == "1" else "no"
    return {"maxmemory-policy": memory["maxmemory_policy"], "appendonly": appends}


def _fields(text: bytes) -> dict[str, str]:
    lines = (it.partition(":") for it in text.decode("utf-8", "replace").split("\r\n"))
    return {name: value for name, colon, value in lines if colon}


def _level(settings: dict[str, str] | None) -> Level:
    if settings is None:
        return Level.UNKNOWN
    if settings.get("appendonly") != "yes":
        return Level.MEMORY
    # `no` leaves it to the system, which takes longer; a server that does not tell has the
    # standard, everysec.
    match settings.get("appendfsync", "everysec"):
        case "always":
            return Level.FSYNC
        case "everysec":
            return Level.SECONDS
        case _:
            return Level.MEMORY


def _check_waiting(
    connection: Connection, wanted: str, version: str, settings: dict[str, str]
) -> None:
    reply: Any
    if wanted == "fsync":
        if settings.get("appendonly") == "no":
            raise NotSupported(
                f"?durability=fsync needs appendonly yes at {connection.place}: there is no "
                "file to wait for; redis-cli CONFIG SET appendonly yes"
            )
        try:
            reply = connection.ask("WAITAOF", "0", "0", "1")
        except Said as said:
            if "unknown command" not in str(said).lower():
                raise
            raise NotSupported(
                f"?durability=fsync needs WAITAOF, and {connection.place} is version {version}: "
                "use Redis 7.2 or Valkey 7.2 and newer, or set appendfsync always"
            ) from None
        return
    reply = connection.ask("ROLE")
    if reply[0] == b"master" and not reply[2]:
        raise EngineUnavailable(
            f"?durability=replica needs a replica, and {connection.place} has none connected now"
        )


def warn(durability: Durability, place: str) -> None:
    """Log what a server can lose, if it can."""
    text = _WARNINGS.get(durability.level)
    is_mended = durability.waits_for == "fsync" and durability.level is not Level.UNKNOWN
    if text and not is_mended:
        log.warning("%s: %s", place, text)


def confirmation(waits_for: str, seconds: float) -> bytes:
    """Return the command that waits until what was written is as safe as was asked for."""
    limit = str(int(seconds * 800))  # so that the server gives up before we do
    if waits_for == "fsync":
        return pack("WAITAOF", "1", "0", limit)
    return pack("WAIT", "1", limit)


def check_confirmed(reply: Any, waits_for: str, place: str) -> None:
    """Look at the answer to a `confirmation`.

    Raises:
        OutcomeUnknown: it is stored, and not as safe as was asked for.
    """
    if isinstance(reply, Said):
        raise OutcomeUnknown(
            f"{place} stored it and did not confirm that it is safe ({reply}); send the same again"
        )
    count = reply[0] if isinstance(reply, list) else reply
    if count < 1:
        what = "on its disk" if waits_for == "fsync" else "on a replica"
        raise OutcomeUnknown(
            f"{place} stored it, and could not say in time that it is {what}; it is lost only if "
            "the server fails now. Send the same ids again to be sure"
        )
