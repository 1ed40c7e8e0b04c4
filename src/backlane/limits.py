"""Limits at run time: what is declared, what the store makes of it, and how it is tuned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from backlane.engine.capability import Capability
from backlane.engine.limiting import Declared, Tuned
from backlane.engine.plan import Plan
from backlane.errors import BadOption, UnknownLimit, nearest
from backlane.model import limit as stored
from backlane.model.limit import LimitRecord, Rate
from backlane.model.limiting import (
    RESERVED,
    Limit,
    RateOption,
    checked_concurrency,
    checked_limit,
    checked_rate,
)
from backlane.model.queue import Queue, checked_name
from backlane.place import Place

Records = list[LimitRecord]  # `list` is a verb in the class below


class Unchanged(Enum):
    """Of an option that is not given."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class Limits:
    """The limits of an application: `app.limits`. It keeps nothing that it read.

    What is set here goes before what the code declares, in all processes, and lasts
    until it is set anew or reset. `task:<task>` is the limit of a task, `queue:<queue>`
    that of a queue.

    .. versionadded:: 0.1
    """

    def __init__(
        self, place: Place, named: Mapping[str, Limit], queues: Iterable[Queue] = ()
    ) -> None:
        self._place = place
        self._named = _checked_names(named)
        self._declared: dict[str, Limit] = {}
        self._in_store: dict[str, stored.Limit] = {}
        if self._named and not place.keeps_jobs:
            place.require(Capability.LIMITS, "Backlane(limits=…)")
        for queue in queues:
            if queue.limit is not None:
                self.declare(f"queue:{queue.name}", queue.limit)
        for name, limit in self._named.items():
            self.declare(name, limit)

    def __repr__(self) -> str:
        return f"<Limits {', '.join(sorted(self._declared))}>"

    @property
    def named(self) -> Mapping[str, Limit]:
        """Those that tasks may name in `limits=`."""
        return MappingProxyType(self._named)

    @property
    def declared(self) -> Mapping[str, Limit]:
        """All that this application declares, by name; those of tasks and queues included."""
        return MappingProxyType(self._declared)

    @property
    def in_store(self) -> Mapping[str, stored.Limit]:
        """The same as engines have them; it follows what is declared later."""
        return self._in_store

    def declare(self, name: str, limit: Limit) -> None:
        """Add the limit of a task or a queue."""
        self._declared[name] = limit
        self._in_store[name] = limit.in_store

    # -- the store --

    def list(self) -> Records:
        """Read all limits of the store by name, with what runs and waits under each."""
        engine = self._place.engine
        return engine.run(engine.list_limits())

    async def alist(self) -> Records:
        """Like `list`."""
        engine = self._place.engine
        return await engine.arun(engine.list_limits())

    def tune(
        self,
        name: str,
        *,
        concurrency: int | Unchanged | None = UNCHANGED,
        rate: RateOption | Unchanged | None = UNCHANGED,
        burst: int | None = None,
    ) -> LimitRecord:
        """Set a limit at run time; None lifts a number, one that is not given stays.

        What runs beyond a lowered concurrency runs on; the next one starts below it.

        Raises:
            UnknownLimit: the store has none of that name; names the nearest.
            BadOption: a value cannot limit anything; says which would.
        """
        wish, records = Wish(concurrency, rate, burst), self.list()
        return self._run(name, self._tuning(name, wish, records), records)

    async def atune(
        self,
        name: str,
        *,
        concurrency: int | Unchanged | None = UNCHANGED,
        rate: RateOption | Unchanged | None = UNCHANGED,
        burst: int | None = None,
    ) -> LimitRecord:
        """Like `tune`."""
        wish, records = Wish(concurrency, rate, burst), await self.alist()
        return await self._arun(name, self._tuning(name, wish, records), records)

    def reset(self, name: str) -> LimitRecord:
        """Forget what was tuned: what the code declares is in force; see `tune` for errors."""
        return self._run(name, self._place.engine.regulate(name, Tuned(None)), self.list())

    async def areset(self, name: str) -> LimitRecord:
        """Like `reset`."""
        records = await self.alist()
        return await self._arun(name, self._place.engine.regulate(name, Tuned(None)), records)

    def _tuning(self, name: str, wish: Wish, records: Records) -> Plan[LimitRecord | None]:
        known = {record.name: record for record in records}
        before = known[name].limit if name in known else self._in_store.get(name)
        if before is None and not name.startswith("queue:"):
            raise _unknown(name, {*self._declared, *known})
        change = wish.applied(before or stored.Limit())
        return self._place.engine.regulate(name, Tuned(change))

    def _declaring(self, name: str, records: Records) -> Plan[LimitRecord | None] | None:
        """Return what makes a limit that we declare, before any job or worker has made it."""
        if name not in self._in_store or any(record.name == name for record in records):
            return None
        return self._place.engine.regulate(name, Declared(self._in_store[name]))

    def _run(self, name: str, plan: Plan[LimitRecord | None], records: Records) -> LimitRecord:
        engine, declaring = self._place.engine, self._declaring(name, records)
        if declaring is not None:
            engine.run(declaring)
        return self._known(name, engine.run(plan), records)

    async def _arun(
        self, name: str, plan: Plan[LimitRecord | None], records: Records
    ) -> LimitRecord:
        engine, declaring = self._place.engine, self._declaring(name, records)
        if declaring is not None:
            await engine.arun(declaring)
        return self._known(name, await engine.arun(plan), records)

    def _known(self, name: str, record: LimitRecord | None, records: Records) -> LimitRecord:
        if record is None:
            raise _unknown(name, {*self._declared, *(one.name for one in records)})
        return record


class Wish:
    """What somebody wants of a limit, judged.

    Raises:
        BadOption: a value cannot limit anything, or nothing is asked for.
    """

    __slots__ = ("_burst", "_concurrency", "_rate")

    def __init__(
        self,
        concurrency: int | Unchanged | None,
        rate: RateOption | Unchanged | None,
        burst: int | None,
    ) -> None:
        if concurrency is UNCHANGED and rate is UNCHANGED and burst is None:
            raise BadOption("nothing is to be changed; give concurrency=, rate= or burst=")
        self._concurrency = (
            concurrency
            if concurrency is None or concurrency is UNCHANGED
            else checked_concurrency(concurrency)
        )
        self._rate: Rate | Unchanged | None = (
            rate if rate is None or rate is UNCHANGED else checked_rate(rate, burst)
        )
        self._burst = None if burst is None else checked_rate((1, 1), burst).burst

    def applied(self, before: stored.Limit) -> stored.Limit:
        """Return what a limit becomes.

        Raises:
            BadOption: a burst of a limit that has no rate.
        """
        rate = before.rate if self._rate is UNCHANGED else self._rate
        if self._burst is not None:
            if rate is None:
                raise BadOption("burst is a part of a rate; give rate= too, such as '100/s'")
            rate = Rate(rate.number, rate.per_ms, self._burst)
        number = before.concurrency if self._concurrency is UNCHANGED else self._concurrency
        return stored.Limit(number, rate, before.per_group)


def _unknown(name: str, known: Iterable[str]) -> UnknownLimit:
    return UnknownLimit(
        f"the store has no limit {name!r}{nearest(name, known)}: it is made by the first job that "
        "is under it, or by a worker of the application that declares it; use a name of "
        "app.limits.list()"
    )


def _checked_names(given: Mapping[str, Limit]) -> dict[str, Limit]:
    if not isinstance(given, Mapping):
        raise BadOption(f"limits is {given!r:.200}; use a dict of names to Limit(…)")
    for name, limit in given.items():
        checked_name(name, "limit")
        if name.startswith(RESERVED):
            raise BadOption(
                f"{name!r} cannot name a limit: names that begin with 'task:' or 'queue:' are "
                "those of tasks and queues; give their limits as @app.task(limit=…) and "
                "Queue(limit=…)"
            )
        checked_limit(limit, f"limits[{name!r}]: ")
    return dict(given)
