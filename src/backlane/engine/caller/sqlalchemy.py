"""Sessions and connections of SQLAlchemy, which begin a transaction when first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session

from backlane.engine.caller.psycopg import check_joinable
from backlane.errors import WrongUse

BEGINS = (
    "leave isolation_level='AUTOCOMMIT' out for it, as a rolled-back block would keep its job too"
)


class SqlAlchemyCaller:
    """A `Session` or a `Connection`."""

    def __init__(self, given: Session | Connection) -> None:
        self.connection = given

    def driver(self) -> Any:
        """Return psycopg's connection; the transaction is begun as by a first statement."""
        core = self._core()
        own = core.connection.driver_connection
        check(core, own)
        return own

    def after_commit(self, ring: Callable[[], None]) -> bool:
        """Have it called by the session's event; that of a connection comes too early."""
        return isinstance(self.connection, Session) and listen(self.connection, ring)

    def begin(self) -> None:
        """Begin, as a first statement would."""
        given = self.connection
        if isinstance(given, Session):
            nested = given.in_nested_transaction()
            given.connection()
        else:
            nested = given.in_nested_transaction()
            if not given.in_transaction():
                given.begin()
        if nested:
            raise WrongUse("the session is in a savepoint; begin context.transaction(…) outside")

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def _core(self) -> Connection:
        given = self.connection
        if isinstance(given, Session):
            return _bound(given.connection)
        if not given.in_transaction():
            given.begin()  # as autobegin would: a statement of ours goes past it
        return given


def called(connection: object) -> SqlAlchemyCaller:
    """Return what knows a session or connection of SQLAlchemy.

    Raises:
        WrongUse: it is something else of SQLAlchemy, such as an engine.
    """
    if isinstance(connection, scoped_session):
        connection = connection()
    if isinstance(connection, Session | Connection):
        return SqlAlchemyCaller(connection)
    raise no_connection(connection)


def no_connection(given: object) -> WrongUse:
    """Return the error for something else of SQLAlchemy."""
    return WrongUse(
        f"a {type(given).__name__} of SQLAlchemy is in no transaction; pass the session or "
        "connection that is"
    )


def check(core: Connection | None, own: object) -> None:
    """Refuse another database, another driver, and a connection in autocommit."""
    dialect = core.dialect if core is not None else None
    if dialect is None or dialect.name != "postgresql":
        raise WrongUse(
            f"the session is on {dialect.name if dialect else 'nothing'}, and the jobs are in "
            "PostgreSQL: no transaction holds both. Enqueue after the commit: "
            '@event.listens_for(session, "after_commit")'
        )
    if type(own).__module__.partition(".")[0] != "psycopg":
        raise WrongUse(
            f"SQLAlchemy uses {dialect.driver} here, and jobs are written through psycopg 3: make "
            "the engine with postgresql+psycopg://… (create_engine and create_async_engine)"
        )
    check_joinable(own, BEGINS)  # type: ignore[arg-type]  # of psycopg, as was just seen


def _bound(connect: Callable[[], Connection]) -> Connection:
    try:
        return connect()
    except UnboundExecutionError as error:
        raise unbound(error) from error
    except InvalidRequestError as error:  # such as: the transaction is inactive after an error
        raise WrongUse(f"the session cannot be joined: {error}") from error


def unbound(error: Exception) -> WrongUse:
    """Return the error for a session that does not know its database."""
    return WrongUse(
        f"the session has several databases, or none ({error}); pass the connection of the one "
        "that holds the jobs: session.connection(bind_arguments={'mapper': …})"
    )


class _Commits:
    """What is to be called once one session has committed: listened for once."""

    def __init__(self, session: Session) -> None:
        self.calls: list[Callable[[], None]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)

    def _committed(self, _: Session) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def _rolled_back(self, _: Session) -> None:
        self.calls = []


_sessions: WeakKeyDictionary[Session, _Commits] = WeakKeyDictionary()


def listen(session: Session, ring: Callable[[], None]) -> bool:
    """Have `ring` called once the session has committed, unless it is rolled back."""
    commits = _sessions.get(session)
    if commits is None:
        commits = _sessions[session] = _Commits(session)
    commits.calls.append(ring)
    return True
