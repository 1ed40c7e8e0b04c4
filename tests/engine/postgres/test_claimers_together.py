"""Many claimers at once: never above a limit, never in each other's way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Self

import psycopg
import pytest

from backlane.engine.limiting import Declared
from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Turn, Wanted
from backlane.engine.selection import Selection
from backlane.model.ids import new_id
from backlane.model.job import Job, Lease, State
from backlane.model.limit import Limit, Rate, Use
from backlane.model.outcome import Settlement, Succeeded

CLAIMERS = 8
HELD = """
select coalesce(max(number), 0)
from (select gate, count(*) as number from holding where limit_no {} 0 group by gate) as those
"""


def job(**fields: object) -> Job:
    given = {"queue": "mail", "task": "send", "body": b"{}"} | fields
    return Job(id=new_id(time.time_ns() // 1_000_000), **given)  # type: ignore[arg-type]


class Crowd:
    """Claimers with an engine and a thread each, as processes have them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done: list[tuple[float, bytes]] = []
        self.errors: list[BaseException] = []

    def work(self, seconds: float, *, until: int, number: int = 3) -> None:
        """Settle and claim until so many jobs are done."""
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._claim, args=(f"c{i}", end, until, number))
            for i in range(CLAIMERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.errors == []

    def _claim(self, owner: str, end: float, until: int, number: int) -> None:
        engine = PostgresEngine(self.url)
        ended: list[Settlement] = []
        try:
            while time.monotonic() < end and len(self.done) < until:
                wanted = [Wanted(owner, number, 30_000, ("mail",))]
                turn: Turn = engine.run(engine.turn(ended, wanted))
                assert turn.settled.lost == []
                claimed = turn.claimed[0]
                now = time.time()
                self.done += [(now, lease.job) for lease in claimed.leases]
                ended = [Settlement(it.job, it.token, Succeeded(), 1) for it in claimed.leases]
                if not ended:
                    time.sleep(min(0.02, (claimed.next_due_ms or 20) / 1000))
            engine.run(engine.settle(ended))
        except BaseException as error:
            self.errors.append(error)
        finally:
            engine.close()


@pytest.fixture
def crowd(url: str) -> Crowd:
    return Crowd(url)


class Watcher:
    """Looks all the time how many hold one use."""

    def __init__(self, url: str, turns: bool) -> None:
        server, _, schema = url.partition("?schema=")
        self._connection = psycopg.connect(server, autocommit=True)
        self._connection.execute(f'set search_path = "{schema}"'.encode())
        self._text = HELD.format("<" if turns else ">").encode()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most = 0

    def _watch(self) -> None:
        while not self._is_over.is_set():
            row = self._connection.execute(self._text).fetchone()
            self.most = max(self.most, row[0] if row else 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._connection.close()


def test_no_more_run_at_a_time_than_the_limit_allows(
    engine: PostgresEngine, crowd: Crowd, url: str
) -> None:
    admission = Admission(limits={"stripe": Limit(concurrency=3)})
    jobs = [job(uses=(Use("stripe"),)) for _ in range(300)]
    engine.run(engine.append(jobs, admission))

    with Watcher(url, turns=False) as watcher:
        crowd.work(30, until=300)

    assert watcher.most == 3
    assert sorted(job for _, job in crowd.done) == sorted(one.id for one in jobs)


def test_a_job_begins_once_its_place_was_given_back(engine: PostgresEngine, url: str) -> None:
    """Also by the records, where the claim had begun before."""
    first, second = job(uses=(Use("stripe"),)), job(uses=(Use("stripe"),))
    engine.run(engine.append([first, second], Admission(limits={"stripe": Limit(concurrency=1)})))
    (held,) = claim(engine)
    server, _, schema = url.partition("?schema=")

    with psycopg.connect(server) as lock, ThreadPoolExecutor() as pool:
        lock.execute(f'set search_path = "{schema}"'.encode())
        lock.execute("lock table ready in share row exclusive mode")
        claimed = pool.submit(claim, engine)
        wait_for_waiter(lock)
        time.sleep(0.01)
        engine.run(engine.settle([Settlement(held.job, held.token, Succeeded(), 1)]))
        lock.commit()
        assert [lease.job for lease in claimed.result()] == [second.id]

    page = engine.run(engine.find(Selection(ids=(first.id, second.id)), limit=2))
    by_id = {record.id: record for record in page.records}
    ended, began = by_id[first.id].ended_ms, by_id[second.id].started_ms
    assert ended is not None
    assert began is not None
    assert ended <= began


@pytest.mark.parametrize("is_full", [False, True])
def test_what_a_dead_owner_had_comes_before_what_others_were_at(
    engine: PostgresEngine, url: str, is_full: bool
) -> None:
    """At once: who brings it back, perhaps with no slot free, looks behind its floor."""
    first, second, third = jobs = [job() for _ in range(3)]
    engine.run(engine.append(jobs, Admission()))
    other = PostgresEngine(url)
    assert [lease.job for lease in claim(other, "dead")] == [first.id]
    other.close()
    assert [lease.job for lease in claim(engine)] == [second.id]

    if is_full:
        assert claim(engine, number=0, departed=("dead",)) == []
        assert [lease.job for lease in claim(engine)] == [first.id]
    else:
        assert [lease.job for lease in claim(engine, departed=("dead",))] == [first.id]
    assert [lease.job for lease in claim(engine)] == [third.id]


def claim(
    engine: PostgresEngine, owner: str = "owner", number: int = 1, departed: tuple[str, ...] = ()
) -> list[Lease]:
    """What may begin, one job as a rule."""
    wanted = Wanted(owner, number, 30_000, ("mail",), departed=departed)
    return engine.run(engine.claim(wanted)).leases


def wait_for_waiter(connection: psycopg.Connection[Any]) -> None:
    """Return once somebody waits for a lock that this connection holds."""
    waiting = "select from pg_locks where not granted and relation = 'ready'::regclass"
    while connection.execute(waiting).fetchone() is None:
        time.sleep(0.001)


def test_no_more_begin_in_a_second_than_the_rate_allows(
    engine: PostgresEngine, crowd: Crowd
) -> None:
    limit = Limit(rate=Rate(200, 1_000, 20))
    jobs = [job(uses=(Use("stripe"),)) for _ in range(500)]
    engine.run(engine.append(jobs, Admission(limits={"stripe": limit})))

    crowd.work(30, until=500)  # how much of the rate is used, `bench limits` tells

    begun = started(engine, jobs)
    assert len(begun) == 500
    for at in begun:
        assert sum(at <= other < at + 1_000 for other in begun) <= 220


def test_a_limited_queue_gives_no_more_than_it_may(engine: PostgresEngine, crowd: Crowd) -> None:
    limits = {"queue:mail": Limit(concurrency=2)}
    jobs = [job() for _ in range(200)]
    engine.run(engine.append(jobs, Admission(limits=limits)))
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            (queue,) = engine.run(engine.list_queues())
            most[0] = max(most[0], queue.depth.running)

    watching = threading.Thread(target=watch)
    watching.start()
    crowd.work(30, until=200)
    is_over.set()
    watching.join()

    assert most == [2]
    assert Counter(job for _, job in crowd.done) == Counter(one.id for one in jobs)


def test_the_jobs_of_a_group_run_in_turn(engine: PostgresEngine, crowd: Crowd, url: str) -> None:
    groups = [f"g{i % 10}" for i in range(300)]
    jobs = [job(uses=(Use("queue:mail", group, turn=True),), group=group) for group in groups]
    for i in range(0, 300, 50):
        engine.run(engine.append(jobs[i : i + 50], Admission()))

    with Watcher(url, turns=True) as watcher:
        crowd.work(30, until=300)

    assert watcher.most == 1
    order = {one.id: i for i, one in enumerate(jobs)}
    for group in range(10):
        begun = [order[done] for _, done in sorted(crowd.done) if order[done] % 10 == group]
        assert begun == sorted(begun)


def test_appends_and_claims_of_two_limits_never_wait_in_a_circle(
    engine: PostgresEngine, crowd: Crowd
) -> None:
    """Jobs name their uses in either order, and come in while others are claimed."""
    admission = Admission(
        limits={"a": Limit(concurrency=4), "b": Limit(concurrency=3), "c": Limit(concurrency=50)}
    )
    uses = (Use("a"), Use("b"), Use("c"), Use("mail", "g", turn=True))

    def append(turned: int) -> None:
        for i in range(40):
            mine = uses[:: 1 if (i + turned) % 2 else -1][: 1 + i % 3]
            engine.run(engine.append([job(uses=mine), job(uses=uses[2:3])], admission))

    appending = [threading.Thread(target=append, args=(i,)) for i in range(2)]
    for thread in appending:
        thread.start()
    crowd.work(40, until=160)
    for thread in appending:
        thread.join()

    assert len(crowd.done) == 160


def test_a_plain_job_does_not_wait_for_who_is_at_a_limit(
    engine: PostgresEngine, server_session: Callable[[], psycopg.Connection]
) -> None:
    admission = Admission(limits={"stripe": Limit(concurrency=5)})
    limited = [job(uses=(Use("stripe"),)) for _ in range(3)]
    plain = job()
    engine.run(engine.append([*limited, plain], admission))
    other = server_session()
    other.execute("begin")
    other.execute("select try_limit(id) from limits")

    began = time.monotonic()
    claimed = engine.run(engine.claim(Wanted("ann", 2, 30_000, ("mail",))))

    assert time.monotonic() - began < 1
    assert [lease.job for lease in claimed.leases] == [plain.id]
    assert claimed.next_due_ms is not None
    assert claimed.next_due_ms <= 10
    other.execute("commit")
    again = engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",))))
    assert [lease.job for lease in again.leases] == [one.id for one in limited]


def test_an_open_transaction_of_a_caller_holds_nobody_up(
    engine: PostgresEngine, server_session: Callable[[], psycopg.Connection]
) -> None:
    admission = Admission(limits={"stripe": Limit(concurrency=1)}, fair=frozenset({"mail"}))
    uses = (Use("stripe"), Use("queue:mail", "g", turn=True))
    first, second = job(uses=uses, group="g"), job(uses=uses, group="g")
    with server_session() as mine, mine.transaction():
        engine.joined(mine).run(engine.append([first], admission))

        began = time.monotonic()
        engine.run(engine.append([second], admission))
        claimed = engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",))))
        took = time.monotonic() - began

    assert took < 1
    assert [lease.job for lease in claimed.leases] == [second.id]
    assert state(engine, first) is State.BLOCKED
    (lease,) = claimed.leases
    engine.run(engine.settle([Settlement(lease.job, lease.token, Succeeded())]))
    again = engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",))))
    assert [lease.job for lease in again.leases] == [first.id]


def test_who_begins_to_wait_while_room_is_freed_is_woken(
    engine: PostgresEngine, server_session: Callable[[], psycopg.Connection]
) -> None:
    """Neither of the two transactions sees the other one."""
    admission = Admission(limits={"stripe": Limit(concurrency=1)})
    first, second = job(uses=(Use("stripe"),)), job(uses=(Use("stripe"),))
    engine.run(engine.append([first], admission))
    (lease,) = engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",)))).leases
    with server_session() as mine, mine.transaction():
        engine.joined(mine).run(engine.append([second], admission))
        engine.run(engine.settle([Settlement(lease.job, lease.token, Succeeded())]))
        assert engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",)))).leases == []

    again = engine.run(engine.claim(Wanted("ann", 5, 30_000, ("mail",))))

    assert [lease.job for lease in again.leases] == [second.id]


def test_one_place_outside_of_jobs_is_given_once(url: str) -> None:
    given: list[bytes] = []

    def acquire(holder: bytes) -> None:
        engine = PostgresEngine(url)
        one = engine.run(engine.acquire(Use("stripe"), Limit(concurrency=3), holder, 30_000))
        if one.is_given:
            given.append(holder)
        engine.close()

    threads = [threading.Thread(target=acquire, args=(bytes([i]),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(given) == 3


def test_quick_appends_declare_what_changed(engine: PostgresEngine) -> None:
    for number in (1, 2, 2, 1):
        limits = {"stripe": Limit(concurrency=number)}
        for _ in range(5):
            engine.run(engine.append([job(uses=(Use("stripe"),))], Admission(limits=limits)))

        (record,) = engine.run(engine.list_limits())
        assert record.limit == Limit(concurrency=number)

    engine.run(engine.regulate("stripe", Declared(Limit(concurrency=7))))
    engine.run(engine.append([job(uses=(Use("stripe"),))], Admission(limits=limits)))
    assert engine.run(engine.list_limits())[0].limit == Limit(concurrency=1)


@pytest.fixture
def server_session(url: str) -> Iterator[Callable[[], psycopg.Connection]]:
    """Sessions of somebody else."""
    server, _, schema = url.partition("?schema=")
    with ExitStack() as stack:

        def opened() -> psycopg.Connection:
            connection = psycopg.connect(server, autocommit=True)
            connection.execute(f'set search_path = "{schema}"'.encode())
            stack.callback(connection.close)
            return connection

        yield opened


def state(engine: PostgresEngine, one: Job) -> State:
    return engine.run(engine.find(Selection(ids=(one.id,)))).records[0].state


def started(engine: PostgresEngine, jobs: list[Job]) -> list[int]:
    """When each of these was leased, by the server's clock."""
    ids = tuple(one.id for one in jobs)
    records = engine.run(engine.find(Selection(ids=ids), limit=len(ids), brief=True)).records
    return sorted(it.started_ms for it in records if it.started_ms is not None)
