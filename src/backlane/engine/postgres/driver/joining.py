"""Joining: plans in the caller's own transaction, on the caller's connection.

The caller commits, and errors of the server reach it as they are, for its transaction is
then in its hands. Bells are rung after the commit: where the caller's library tells of
it at once, else as `commits` sees it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from backlane.engine.caller import AsyncCaller, Caller, called
from backlane.engine.caller.kind import is_async, plain
from backlane.engine.plan import Plan, Sql, finish
from backlane.engine.postgres.driver.commits import Commits
from backlane.engine.postgres.driver.cursor import AsyncCursorWire, CursorWire
from backlane.engine.postgres.driver.lent import Lending
from backlane.engine.postgres.driver.links import Links
from backlane.engine.postgres.store.plans import AppendPlan
from backlane.engine.postgres.store.statement import quoted
from backlane.engine.postgres.store.transaction import PostgresTx, Rings
from backlane.errors import WrongUse

T = TypeVar("T")

# Two connections with equal answers are open on the same tables of the same server.
IDENTITY: Sql[tuple[int, int, int]] = Sql(
    """
    select (select oid::bigint from pg_catalog.pg_database where datname = current_database()),
        coalesce(pg_catalog.to_regclass($1::text)::oid::bigint, 0),
        floor(extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint
    """
)
XID: Sql[tuple[int]] = Sql("select pg_catalog.pg_current_xact_id()::text::bigint")


class Home:
    """The tables that one process has its jobs in, as any connection can be asked."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.commits = Commits(links.ring)
        self.lending = Lending(links.opener, links.address.pool)
        self._name = f"{quoted(links.address.schema)}.meta"
        self._identity: tuple[int, int, int] | None = None
        # Known to be open on these tables.
        self._same: weakref.WeakSet[Any] = weakref.WeakSet()

    def identify(self) -> Plan[tuple[int, int, int]]:
        """Read where a connection is open, without touching a table."""

        async def read(tx: PostgresTx) -> tuple[int, int, int]:
            return (await tx.rows(IDENTITY, self._name))[0]

        return Plan(read, reads=True)

    def is_known(self, driver: object) -> bool:
        """Whether a connection was looked at before."""
        return driver in self._same

    def knows(self, identity: tuple[int, int, int]) -> bool:
        """Whether these are our tables, as far as was read before."""
        return identity == self._identity

    def check(self, driver: Any, theirs: tuple[int, int, int], ours: tuple[int, int, int]) -> None:
        """Refuse a connection to another place.

        Raises:
            WrongUse: its transaction cannot hold jobs of ours; says which could.
        """
        self._identity = ours
        url = self.links.address.url
        if not ours[1]:
            raise WrongUse(
                f"{url} has no tables of backlane yet; make them before the transaction "
                f"begins, once: backlane migrate --url {url}"
            )
        if theirs != ours:
            info = driver.info
            raise WrongUse(
                f"the connection is open on the database {info.dbname!r} of {info.host}:"
                f"{info.port}, and the jobs are in {url}; use one to that database, for only "
                "its transaction can hold both"
            )
        encoding = driver.info.encoding
        if encoding not in ("utf-8", "ascii"):
            raise WrongUse(
                f"the connection's client_encoding is {encoding}, and jobs are UTF-8; connect "
                "with client_encoding=utf8"
            )
        self._same.add(driver)


class JoinedTransaction:
    """The caller's open transaction. Without `ring`, `rings` says what is left to ring."""

    def __init__(
        self, caller: Caller | AsyncCaller, home: Home, ring: Callable[[Rings], None] | None
    ) -> None:
        self.rings = Rings()
        self._caller = caller
        self._home = home
        self._links = home.links
        self._ring = ring

    def run(self, plan: Plan[T]) -> T:
        """Run a plan; what it did is durable once the caller commits."""
        driver = self._plain().driver()
        self._check(driver)
        if isinstance(plan, AppendPlan) and plan.granting is not None:
            xid = finish(self._xid(CursorWire(driver)))
            plan = plan.granted(self._links.run(plan.granting(xid)))
        tx = self._links.begin(CursorWire(driver), is_joined=True)
        value = finish(plan.within(tx))
        self._leave(tx, driver)
        return value

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`, for a connection of either colour."""
        caller = self._caller
        wire: CursorWire | AsyncCursorWire
        if is_async(caller):
            driver = await caller.adriver()
            wire = AsyncCursorWire(driver)
        else:
            driver = self._plain().driver()
            wire = CursorWire(driver)
        if not self._home.is_known(driver):
            theirs = await self._home.identify().within(self._tx(wire))
            if not self._home.knows(theirs):
                ours = await self._links.arun(self._home.identify())
            else:
                ours = theirs
            self._home.check(driver, theirs, ours)
        if isinstance(plan, AppendPlan) and plan.granting is not None:
            plan = plan.granted(await self._links.arun(plan.granting(await self._xid(wire))))
        tx = self._tx(wire)
        value = await plan.within(tx)
        self._leave(tx, driver)
        return value

    def _check(self, driver: psycopg.Connection[Any]) -> None:
        if self._home.is_known(driver):
            return
        theirs = finish(self._home.identify().within(self._tx(CursorWire(driver))))
        ours = theirs if self._home.knows(theirs) else self._links.run(self._home.identify())
        self._home.check(driver, theirs, ours)

    def _tx(self, wire: CursorWire | AsyncCursorWire) -> PostgresTx:
        return self._links.begin(wire, is_joined=True)

    async def _xid(self, wire: CursorWire | AsyncCursorWire) -> int:
        return (await self._tx(wire).rows(XID))[0][0]

    def _leave(self, tx: PostgresTx, driver: Any) -> None:
        """Have the bells rung once the caller has committed."""
        ring, rings = self._ring, tx.rings
        if ring is None:
            self.rings.add(rings)
        elif rings and not self._caller.after_commit(lambda: ring(rings)):
            self._home.commits.expect(driver, rings)

    def _plain(self) -> Caller:
        return plain(self._caller, "use the verbs with an `a`, such as `await task.aenqueue(…)`")


def joined(connection: object, home: Home, ring: Callable[[Rings], None]) -> JoinedTransaction:
    """Join the transaction that is open on a connection, session or alias.

    Raises:
        WrongUse: it cannot be joined; says why, and which can.
    """
    caller = called(connection)
    if not is_async(caller):
        driver = plain(caller, "").driver()
        if isinstance(driver, psycopg.AsyncConnection):
            raise WrongUse(
                "this session is used with `await` (it was given out by run_sync); enqueue "
                "outside of run_sync: await task.using(connection=async_session).aenqueue(…)"
            )
        if not isinstance(driver, psycopg.Connection):
            raise WrongUse(
                f"{type(driver).__module__}.{type(driver).__name__} cannot be joined: the jobs "
                "are in PostgreSQL, so pass a connection of psycopg to the same database"
            )
    return JoinedTransaction(caller, home, ring)
