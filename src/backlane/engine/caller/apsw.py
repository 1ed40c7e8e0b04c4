"""Connections of apsw: the caller begins and ends transactions in SQL."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from backlane.errors import WrongUse


class ApswCaller:
    """An `apsw.Connection`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def driver(self) -> apsw.Connection:
        """Return it, if it is in a transaction."""
        if not self.connection.in_transaction:
            raise WrongUse("the connection is in no transaction; begin one first")
        return self.connection

    def after_commit(self, ring: Callable[[], None]) -> bool:  # noqa: ARG002
        """Its hook comes before the commit, which is too early."""
        return False

    def begin(self) -> None:
        """Begin to write, unless the caller has begun."""
        if not self.connection.in_transaction:
            self.connection.execute("begin immediate")

    def commit(self) -> None:
        self.connection.execute("commit")

    def rollback(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("rollback")


def called(connection: object) -> ApswCaller:
    """Return what knows a connection of apsw.

    Raises:
        WrongUse: it is something else of apsw.
    """
    if not isinstance(connection, apsw.Connection):
        raise WrongUse(f"a {type(connection).__name__} of apsw is no connection; pass that")
    return ApswCaller(connection)
