"""Callers: connections that others own and hand in, and whose transaction is shared.

Each library has its own idea of when a transaction begins and who ends it; a `Caller`
knows it, and gives out the driver's connection once that is in a transaction. Nothing
here speaks to a store of jobs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from backlane.engine.caller.kind import AsyncCaller, Caller, HeldTransaction
from backlane.errors import WrongUse

__all__ = ["AsyncCaller", "Caller", "HeldTransaction", "called"]

# Imported when such a connection is handed in: then its library is there.
_LIBRARIES = {
    "psycopg": "backlane.engine.caller.psycopg",
    "psycopg_pool": "backlane.engine.caller.psycopg",
    "sqlalchemy": "backlane.engine.caller.sqlalchemy",
    "flask_sqlalchemy": "backlane.engine.caller.sqlalchemy",
    "sqlmodel": "backlane.engine.caller.sqlalchemy",
    "django": "backlane.engine.caller.django",
    "apsw": "backlane.engine.caller.apsw",
}
_OTHER_DRIVERS = {
    "psycopg2": "psycopg2",
    "asyncpg": "asyncpg",
    "aiopg": "aiopg",
    "pg8000": "pg8000",
    "pgdb": "PyGreSQL",
}


def called(connection: object) -> Caller | AsyncCaller:
    """Return what knows how to share the transaction of a connection, session or alias.

    Raises:
        WrongUse: it is none of a library that is known; says which are.
    """
    if isinstance(connection, str) and ":" not in connection:  # the alias of a database
        return _of("backlane.engine.caller.django", connection)
    ancestors = type(connection).__mro__
    if any(cls.__module__.startswith("sqlalchemy.ext.asyncio") for cls in ancestors):
        return _of("backlane.engine.caller.sqlalchemy_async", connection)
    for cls in ancestors:
        library = cls.__module__.partition(".")[0]
        if library in _LIBRARIES:
            return _of(_LIBRARIES[library], connection)
        if library in _OTHER_DRIVERS:
            raise WrongUse(
                f"a connection of {_OTHER_DRIVERS[library]} cannot be joined: jobs are written "
                "through psycopg 3. Connect with psycopg (with SQLAlchemy: "
                "postgresql+psycopg://…), or enqueue after your commit"
            )
    raise WrongUse(
        f"{type(connection).__module__}.{type(connection).__qualname__} cannot be joined: pass a "
        "connection of psycopg, a session or connection of SQLAlchemy, or a Django alias"
    )


def _of(module: str, connection: object) -> Caller | AsyncCaller:
    try:
        known: Any = import_module(module)
    except ImportError as error:
        raise WrongUse(
            f"{connection!r:.100} cannot be joined: {error}; install what it belongs to, or pass "
            "a connection"
        ) from error
    caller: Caller | AsyncCaller = known.called(connection)
    return caller
