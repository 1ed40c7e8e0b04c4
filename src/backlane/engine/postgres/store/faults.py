"""Faults: what PostgreSQL and the network raise, told as errors that say what to do.

Foreign errors are translated here and nowhere else. None of them shows a password:
libpq's messages name host, port, user and database only.
"""

from __future__ import annotations

from shlex import quote
from typing import Any

import psycopg

from backlane.engine.postgres.store.address import Address
from backlane.engine.postgres.store.statement import quoted
from backlane.engine.postgres.store.waits import Silence
from backlane.errors import (
    BacklaneError,
    EngineBusy,
    EngineUnavailable,
    OutcomeUnknown,
    SchemaMismatch,
    StoreCorrupt,
    StoreFull,
    TooLarge,
)

# The transaction was rolled back because of another one: the same again may well succeed.
COLLISIONS = ("40001", "40P01")
# What was prepared is unknown or is there already: a pooler changed the session under us.
MIXED_UP = ("26000", "42P05")
# A table was changed since the statement was prepared.
OUTDATED = ("0A000",)
_MISSING = ("42P01", "3F000", "42883", "42703")
_ENDED = ("57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "08000", "08003", "08006")


def is_ended(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, or is about to go."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
    return state in _ENDED


def unknown(error: BaseException, address: Address) -> OutcomeUnknown:
    """Return the error for a connection that was lost while a change was under way."""
    return OutcomeUnknown(
        f"the connection to {address.url} was lost while a change was under way "
        f"({_words(error)}); it may have been stored: send the same ids again"
    )


def translated(error: BaseException, address: Address) -> BaseException:  # long: read down
    """Return the error of ours that tells of a foreign one; others as they are."""
    if isinstance(error, BacklaneError) or not isinstance(error, psycopg.Error | OSError):
        return error
    where, words = address.url, _words(error)
    state: Any = getattr(error, "sqlstate", None)
    match state:
        case None if isinstance(error, Silence):
            return EngineUnavailable(f"{where} did not answer in time; it or the network hangs")
        case None if isinstance(error, psycopg.DataError):
            return StoreCorrupt(
                f"{where}: a value on its way is not one that backlane writes ({words})"
            )
        case None:
            return _unreachable(where, words or type(error).__name__)
        case "53300" | "53000":
            return _crowded(where, words)
        case "53100":
            return StoreFull(
                f"the disk of {where} is full, so nothing was stored; what was acknowledged "
                "before is safe. Free some space: work resumes by itself"
            )
        case "55P03" | "40001" | "40P01":
            return EngineBusy(f"{where} holds a lock for another transaction ({words}); try again")
        case "57014":
            return EngineBusy(
                f"{where} took longer than a statement may ({words}): it is overloaded, or a "
                "lock is held elsewhere; try again"
            )
        case "42501":
            return EngineUnavailable(_forbidden(words, address))
        case "3D000":
            return _homeless(where, words)
        case "25006":
            return EngineUnavailable(
                f"{where} takes no changes ({words}): it is a standby, or was set to read only; "
                "name the primary"
            )
        case "54000" | "54001" | "54023" | "22001":
            return TooLarge(f"a value is larger than {where} can keep: {words}")
        case "XX001" | "XX002":
            return StoreCorrupt(f"{where} is damaged ({words}); restore it from a backup")
        case _ if state in _MISSING:
            return SchemaMismatch(
                f"{where} has no tables of backlane in the schema {address.schema!r}, or older "
                f"ones ({words}); make them, once: backlane migrate --url {quote(where)}"
            )
        case _ if state[:2] == "28":
            return _stranger(where, words)
        case _ if state in _ENDED:
            return EngineUnavailable(f"{where} ended the connection ({words})")
        case _:
            return EngineUnavailable(f"{where} refused the work: {words} [{state}]")


def _unreachable(where: str, words: str) -> EngineUnavailable:
    """Return the error for a connection that was not made: libpq gives words, and no code."""
    if any(sign in words for sign in ("too many clients", "connection slots", "too many conn")):
        return _crowded(where, words)
    if "database" in words and "does not exist" in words:
        return _homeless(where, words)
    if "role" in words and "does not exist" in words:
        return _stranger(where, words)
    if any(sign in words for sign in ("authentication failed", "pg_hba", "password supplied")):
        return _stranger(where, words)
    return EngineUnavailable(
        f"{where} cannot be reached ({words}); check that the server runs there and that this "
        "machine may connect to it"
    )


def _crowded(where: str, words: str) -> EngineBusy:
    return EngineBusy(
        f"{where} has too many connections ({words}): raise max_connections, or have fewer "
        "processes or a smaller pool= each; it works as soon as one is free"
    )


def _homeless(where: str, words: str) -> EngineUnavailable:
    return EngineUnavailable(f"{where}: {words}; make it first, with createdb")


def _stranger(where: str, words: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"{where} does not let this user in ({words}); check user and password, and the "
        "server's pg_hba.conf"
    )


def _forbidden(words: str, address: Address) -> str:
    schema = quoted(address.schema)
    return (
        f"{address.url}: {words}. The owner of the schema lets a role in with the grants of "
        "docs/engines/postgresql.md (Rights), which begin with: grant usage on schema "
        f"{schema} to <role>; to make the tables a role needs: "
        f"grant create on database {quoted(address.database or 'postgres')} to <role>"
    )


def _words(error: BaseException) -> str:
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    return " ".join(str(primary or error).split())
