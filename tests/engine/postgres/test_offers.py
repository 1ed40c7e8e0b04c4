"""Offers on several connections at once: no job named twice, and nobody in another's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from backlane.engine.offering import Offer
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.lease.windows import Begin, Windows
from backlane.engine.protocol import Admission, Claimed, Presence, Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Reprioritise, Selection
from backlane.model.ids import new_id
from backlane.model.job import Job
from backlane.model.outcome import Settlement, Succeeded

FOR_MS = 60_000
ALL = 2_000
BEAT = Presence(owner="ann", host="h", pid=1, queues=("mail",), slots=1, running=0)


def add(engine: PostgresEngine, number: int, **fields: object) -> list[bytes]:
    given = {"queue": "mail", "task": "send", "body": b"{}"} | fields
    jobs = [
        Job(id=new_id(time.time_ns() // 1_000_000), **given)  # type: ignore[arg-type]
        for _ in range(number)
    ]
    assert isinstance(engine.run(engine.append(jobs, Admission())), list)
    return [job.id for job in jobs]


def offered(engine: PostgresEngine, window: int = ALL) -> list[bytes]:
    return [one.job for one in engine.run(engine.offer([Offer("mail", window)], FOR_MS)).jobs]


def claim(engine: PostgresEngine, number: int, *ids: bytes) -> Claimed:
    return engine.run(engine.claim(Wanted("ann", number, 30_000, ("mail",), ids=ids)))


def claimed(engine: PostgresEngine, number: int, *ids: bytes) -> list[bytes]:
    return [lease.job for lease in claim(engine, number, *ids).leases]


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    schema = url.partition("schema=")[2]
    with psycopg.connect(url.partition("?")[0]) as made:
        made.execute(f'set search_path = "{schema}"'.encode())
        made.commit()
        yield made


@pytest.fixture
def other(url: str) -> Iterator[PostgresEngine]:
    """Another process, as far as the server can tell."""
    made = PostgresEngine(url)
    yield made
    made.close()


class Throng:
    """Relays, workers and others, an engine and a thread each, as processes have them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.named: list[bytes] = []
        self.leased: list[bytes] = []
        self.errors: list[BaseException] = []
        self.is_over = threading.Event()

    def gather(self, *acts: Callable[[PostgresEngine], None]) -> None:
        with ExitStack() as opened:
            threads = []
            for act in acts:
                engine = PostgresEngine(self.url)
                opened.callback(engine.close)
                threads.append(threading.Thread(target=self._go, args=(act, engine)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert self.errors == []

    def _go(self, act: Callable[[PostgresEngine], None], engine: PostgresEngine) -> None:
        try:
            while not self.is_over.is_set():
                act(engine)
        except BaseException as error:
            self.errors.append(error)
            self.is_over.set()

    def relay(self, engine: PostgresEngine) -> None:
        self.named += offered(engine, 60)

    def work(self, engine: PostgresEngine) -> None:
        """Claim what was named, as if it had arrived, and some by queue; settle it."""
        arrived = [job for job in self.named[-120:] if job not in self.leased]
        leases = claim(engine, 20, *arrived).leases
        leases += engine.run(engine.claim(Wanted("ann", 2, 30_000, ("mail",)))).leases
        self.leased += [lease.job for lease in leases]
        ended = [Settlement(lease.job, lease.token, Succeeded()) for lease in leases]
        assert engine.run(engine.settle(ended)).lost == []


def test_relays_workers_and_people_at_once_stay_out_of_each_others_way(
    engine: PostgresEngine, url: str
) -> None:
    jobs = add(engine, 400)
    throng, cancelled, levels = Throng(url), list[bytes](), iter(range(10**9))

    def change(engine: PostgresEngine) -> None:
        some = tuple(jobs[next(levels) % 400 :: 40])
        engine.run(engine.amend(Selection(ids=some), Reprioritise(next(levels) % 10)))
        done = engine.run(engine.amend(Selection(ids=some[:1]), Cancel()))
        cancelled.extend(done.changed)

    def mend(engine: PostgresEngine) -> None:
        engine.run(engine.sweep(1_000, Retention()))
        engine.run(engine.withdraw(throng.named[-5:]))
        engine.run(engine.announce(BEAT))
        if len(throng.leased) + len(cancelled) >= 400:
            throng.is_over.set()

    throng.gather(throng.relay, throng.relay, throng.work, throng.work, change, mend)

    states = engine.run(engine.list_queues())[0]
    assert (states.depth.ready, states.depth.running) == (0, 0)
    assert len(set(throng.leased)) == len(throng.leased)
    assert sorted(throng.leased + cancelled) == sorted(jobs)


def test_relays_of_several_processes_never_name_the_same_job(
    engine: PostgresEngine, url: str
) -> None:
    jobs = add(engine, 600)
    throng = Throng(url)

    def relay(engine: PostgresEngine) -> None:
        throng.named += offered(engine, len(throng.named) + 25)
        if len(throng.named) >= 600:
            throng.is_over.set()

    throng.gather(relay, relay, relay, relay)

    assert sorted(throng.named) == jobs


def test_a_window_is_not_passed_by_two_that_offer_at_once(engine: PostgresEngine, url: str) -> None:
    add(engine, 600)
    throng = Throng(url)
    start = threading.Barrier(4)

    def relay(engine: PostgresEngine) -> None:
        start.wait()
        throng.named += offered(engine, 100)
        throng.is_over.set()

    throng.gather(relay, relay, relay, relay)

    assert len(throng.named) == 100


# -- rows that others hold --

HOLD = "select 1 from ready join job using (seq) where job.id = %s for update of ready"


def test_what_somebody_holds_is_named_once_it_is_let_go(
    engine: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    first, second, third = add(engine, 3)
    connection.execute(HOLD, [second])

    assert offered(engine) == [first, third]
    connection.rollback()
    assert offered(engine) == [second]


def test_a_claim_by_ids_waits_for_nobody(
    engine: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    first, second, third = add(engine, 3)
    connection.execute(HOLD, [first])
    began = time.monotonic()

    assert claimed(engine, 2, first, second, third) == [second, third]
    assert time.monotonic() - began < 1
    connection.rollback()
    assert claimed(engine, 2, first, second, third) == [first]


def test_a_claim_by_ids_holds_no_more_than_it_takes(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    jobs = add(engine, 40)
    taken = connection.execute(
        """
        select job
        from claim(1, null, null, 'bob', 10, 30000, 'tasks', 0, '{}', %s, '{}', 0, '{}', '{}',
            '{}', '{}', '{}', '{}', true)
        where job is not null
        """,
        [jobs],
    ).fetchall()

    assert [bytes(job) for (job,) in taken] == jobs[:10]
    assert claimed(other, 40, *jobs) == jobs[10:]
    connection.rollback()
    assert claimed(engine, 40, *jobs) == jobs[:10]


def test_an_offer_that_is_not_committed_is_waited_for(
    engine: PostgresEngine, other: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    jobs = add(engine, 2)
    offered(other, 0)
    connection.execute(
        """
        select job from offer(null, null, 60000, '{mail}', '{0}', '{9}', '{null}',
            '{-9223372036854775808}', 0, '{}', '{}', '{}', '{}', '{}', null, null)
        """
    )
    named: list[list[bytes]] = []
    relay = threading.Thread(target=lambda: named.append(offered(other)))
    relay.start()

    assert claimed(engine, 1, *jobs) == jobs[:1]  # a claim waits for no relay
    assert named == []
    connection.commit()
    relay.join()
    assert named == [[]]


# -- what it costs others --


def test_marks_are_not_written_to_the_log(
    engine: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    kind = connection.execute("select relpersistence from pg_class where oid = 'offered'::regclass")

    assert kind.fetchone() == ("u",)


def test_a_claim_by_ids_skips_nobody_for_the_next_by_queue(engine: PostgresEngine) -> None:
    """A process goes on behind what it took last, but what it took by id may have others
    before it."""
    jobs = add(engine, 30)

    assert claimed(engine, 5, *jobs[10:15]) == jobs[10:15]
    assert claimed(engine, 5) == jobs[:5]
    assert claimed(engine, 5, *jobs[20:25]) == jobs[20:25]
    assert claimed(engine, 10) == jobs[5:10] + jobs[15:20]


def test_what_goes_back_to_its_place_is_named_before_those_behind_it(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    """Though this process offers on from where it was, and the line is long."""
    jobs = add(engine, 300)
    assert offered(engine, 20) == jobs[:20]
    lease = claim(other, 1, jobs[0]).leases[0]
    assert offered(engine, 20) == [jobs[20]]
    other.run(other.amend(Selection(ids=(lease.job,)), Cancel()))
    assert claimed(other, 4, *jobs[1:5]) == jobs[1:5]

    urgent = add(other, 1, priority=9)

    assert offered(engine, 20) == urgent + jobs[21:24]


def test_offers_go_on_from_where_a_long_line_began() -> None:
    windows, one = Windows(), Offer("mail", 9)
    windows.looked(windows.begin([one]), 10)

    windows.keep(one, 5, is_long=True, begins=[0, 4, 100, 7])
    assert windows.begin([one]) == Begin([5], [1], [0], [4], [100], [6])
    windows.keep(one, 5, is_long=False, begins=[0, 4, 100, 7])
    assert windows.begin([one]) == Begin([5], [], [], [], [], [])
    windows.forget()
    assert windows.begin([one]) == Begin.all(1)


def test_a_snapshot_that_is_held_elsewhere_hides_no_job(
    engine: PostgresEngine, connection: psycopg.Connection[Any]
) -> None:
    """A backup may hold one for hours, under which every mark and row stays."""
    connection.execute("set transaction isolation level repeatable read")
    connection.execute("select count(*) from ready")
    for _ in range(3):
        jobs = add(engine, 1_000)
        for at in range(0, 1_000, 250):
            assert offered(engine, 250) == jobs[at : at + 250]
            assert claimed(engine, 250, *jobs[at : at + 250]) == jobs[at : at + 250]
