"""Sessions and connections of SQLAlchemy that are used with `await`.

Apart from the others, for SQLAlchemy's own module of them needs a library (greenlet)
that who does without `await` need not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from backlane.engine.caller.sqlalchemy import check, listen, no_connection, unbound
from backlane.errors import WrongUse


class AsyncSqlAlchemyCaller:
    """An `AsyncSession` or an `AsyncConnection`."""

    def __init__(self, given: AsyncSession | AsyncConnection) -> None:
        self.connection = given

    async def adriver(self) -> Any:
        """Return psycopg's async connection; see `SqlAlchemyCaller.driver`."""
        given = self.connection
        if isinstance(given, AsyncSession):
            try:
                core = await given.connection()
            except UnboundExecutionError as error:
                raise unbound(error) from error
        else:
            core = given
            if not core.in_transaction():
                await core.begin()
        own = (await core.get_raw_connection()).driver_connection
        check(core.sync_connection, own)
        return own

    def after_commit(self, ring: Callable[[], None]) -> bool:
        """Have it called by the session's event; that of a connection comes too early."""
        given = self.connection
        return isinstance(given, AsyncSession) and listen(given.sync_session, ring)

    async def abegin(self) -> None:
        """Begin, as a first statement would."""
        given = self.connection
        if given.in_nested_transaction():
            raise WrongUse("the session is in a savepoint; begin context.transaction(…) outside")
        if isinstance(given, AsyncSession):
            await given.connection()
        elif not given.in_transaction():
            await given.begin()

    async def acommit(self) -> None:
        await self.connection.commit()

    async def arollback(self) -> None:
        await self.connection.rollback()


def called(connection: object) -> AsyncSqlAlchemyCaller:
    """Return what knows an async session or connection of SQLAlchemy.

    Raises:
        WrongUse: it is something else, such as an engine.
    """
    if isinstance(connection, async_scoped_session):
        connection = connection()
    if isinstance(connection, AsyncSession | AsyncConnection):
        return AsyncSqlAlchemyCaller(connection)
    raise no_connection(connection)
