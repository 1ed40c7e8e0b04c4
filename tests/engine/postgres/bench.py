"""Plans that do little, for tests of what carries plans out."""

from __future__ import annotations

from collections.abc import Iterable

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres.store.plans import StepPlan
from backlane.engine.postgres.store.transaction import PostgresTx

ECHO: Sql[tuple[int]] = Sql("select $1::bigint")
SLEEP: Sql[tuple[str]] = Sql("select pg_sleep($1::float8)::text")
SESSION: Sql[tuple[int]] = Sql("select pg_backend_pid()")
KEEP: Sql[tuple[()]] = Sql("insert into backlane.meta (name, number) values ($1::text, $2::bigint)")
KEPT: Sql[tuple[int]] = Sql("select number from backlane.meta where name = $1::text")
RAISE: Sql[tuple[int]] = Sql("update backlane.meta set number = number + 1 where name = $1::text")
END: Sql[tuple[bool]] = Sql("select pg_terminate_backend($1::int)")


def echo(number: int = 1) -> Plan[int]:
    """One statement, and no transaction around it."""

    async def within(tx: PostgresTx) -> int:
        return (await tx.rows(ECHO, number))[0][0]

    return Plan(within, reads=True)


def session() -> Plan[int]:
    """The number of the server's process for the connection."""

    async def within(tx: PostgresTx) -> int:
        return (await tx.rows(SESSION))[0][0]

    return Plan(within, reads=True)


def sleep(seconds: float, *, writes: bool = False) -> Plan[int]:
    """A statement that takes this long; `writes`: nobody can tell what it did."""

    async def within(tx: PostgresTx) -> int:
        await tx.rows(SLEEP, seconds)
        return 1

    return StepPlan(within) if writes else Plan(within, reads=True)


def keep(name: str, number: int = 1, *, twice: bool = False) -> Plan[None]:
    """A transaction that stores a number; `twice` fails at its second statement."""

    async def within(tx: PostgresTx) -> None:
        await tx.rows(KEEP, name, number)
        if twice:
            await tx.rows(KEEP, name, number)

    return Plan(within)


def kept(name: str) -> Plan[list[int]]:
    """The numbers that were stored under a name."""

    async def within(tx: PostgresTx) -> list[int]:
        return [number for (number,) in await tx.rows(KEPT, name)]

    return Plan(within, reads=True)


def end(session: int) -> Plan[list[tuple[bool]]]:
    """End a session, as an administrator does."""

    async def within(tx: PostgresTx) -> list[tuple[bool]]:
        return await tx.rows(END, session)

    return Plan(within, reads=True)


def ringing(
    queues: Iterable[str] = (), jobs: Iterable[bytes] = (), starts: Iterable[bytes] = ()
) -> Plan[None]:
    """A transaction after which bells are rung."""

    async def within(tx: PostgresTx) -> None:
        tx.rings.queues |= set(queues)
        tx.rings.jobs += jobs
        tx.rings.starts += starts
        await tx.rows(ECHO, 1)

    return StepPlan(within)
