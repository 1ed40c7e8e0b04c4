"""Databases of Django: an alias, or the connection that it stands for in this thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]
from django.db import connections, transaction  # type: ignore[import-untyped]
from django.utils.connection import ConnectionDoesNotExist  # type: ignore[import-untyped]

from backlane.engine.caller.psycopg import check_joinable
from backlane.errors import WrongUse, nearest


class DjangoCaller:
    """A database of Django, in the thread that hands it in."""

    def __init__(self, wrapper: Any) -> None:
        self.connection = wrapper
        self._atomic: Any = None

    def driver(self) -> Any:
        """Return psycopg's connection, whose transaction is that of `atomic`."""
        wrapper = self.connection
        if wrapper.vendor != "postgresql":
            raise WrongUse(
                f"the database {wrapper.alias!r} is {wrapper.vendor}, and the jobs are in "
                "PostgreSQL: no transaction holds both. Enqueue after the commit: "
                "transaction.on_commit(lambda: task.enqueue(…))"
            )
        if wrapper.needs_rollback:
            raise WrongUse(
                "an error has ended this atomic block, which can only roll back; let it leave "
                "the block, then enqueue"
            )
        wrapper.ensure_connection()
        own = wrapper.connection
        if type(own).__module__.partition(".")[0] == "psycopg2":
            raise WrongUse(
                "Django uses psycopg2 here, and jobs are written through psycopg 3: "
                "pip install 'psycopg[binary]', which Django then prefers"
            )
        check_joinable(own, "enqueue inside `with transaction.atomic():`")
        return own

    def after_commit(self, ring: Callable[[], None]) -> bool:
        """Have it called by `on_commit`, so not for a savepoint that is rolled back."""
        if not self.connection.in_atomic_block:
            return False
        transaction.on_commit(ring, using=self.connection.alias, robust=True)
        return True

    def begin(self) -> None:
        """Enter an `atomic` block, which must be the outermost."""
        if self.connection.in_atomic_block:
            raise WrongUse(
                "inside transaction.atomic() only that block can commit; begin "
                "context.transaction(…) outside of it (in tests: use TransactionTestCase)"
            )
        self._atomic = transaction.atomic(using=self.connection.alias, durable=True)
        self._atomic.__enter__()

    def commit(self) -> None:
        self._leave(None)

    def rollback(self) -> None:
        self._leave(_RolledBack())

    def _leave(self, error: Exception | None) -> None:
        atomic, self._atomic = self._atomic, None
        if atomic is not None:
            atomic.__exit__(type(error) if error else None, error, None)


class _RolledBack(Exception):
    """Has an atomic block roll back."""


def called(connection: object) -> DjangoCaller:
    """Return what knows an alias, or a connection of Django.

    Raises:
        WrongUse: there is no such database; names the nearest.
    """
    if isinstance(connection, str):
        try:
            return DjangoCaller(connections[connection])
        except (ConnectionDoesNotExist, ImproperlyConfigured) as error:
            known = nearest(connection, connections) if _is_configured() else ""
            raise WrongUse(
                f"{connection!r} is no database of Django here{known} ({error}); pass an alias "
                "of settings.DATABASES, or a connection"
            ) from error
    if hasattr(connection, "in_atomic_block"):
        return DjangoCaller(connection)
    if hasattr(connection, "_alias"):  # `django.db.connection` stands for the default one
        return DjangoCaller(connections[connection._alias])
    raise WrongUse(
        f"a {type(connection).__name__} of Django is no database; pass its alias, such as 'default'"
    )


def _is_configured() -> bool:
    try:
        list(connections)
    except ImproperlyConfigured:
        return False
    return True
