"""What depends on a failing resource waits, all else runs, and no attempt is spent on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.worker.conftest import wait_until

from backlane import Backlane, ResourceRecord, Retry, events
from backlane.engine.selection import Selection
from backlane.handle import JobHandle
from backlane.model.clock import FakeClock
from backlane.model.job import JobRecord, State
from backlane.worker import Worker

START = datetime(2030, 1, 1, tzinfo=UTC)
SOON = Retry(attempts=10, base=1, cap=1)
LONGEST_FIRST = 36  # seconds: 30 and a fifth more


class Shop:
    """An application whose provider is well or down, as the test says."""

    def __init__(self, url: str, clock: FakeClock) -> None:
        self.app = app = Backlane(url, clock=clock)
        self.clock = clock
        self.is_down = True
        self.answers = asyncio.Event()
        self.charges = 0
        self.heard: list[events.ResourceChanged] = []

        @app.task(name="charge", resource="stripe", retry=SOON)
        async def charge(order: int) -> int:
            self.charges += 1
            await asyncio.sleep(0.01)
            if self.is_down:
                raise ConnectionError("no route to the provider")
            return order

        @app.task(name="mail")
        async def mail(order: int) -> int:
            return order

        @app.observe
        def observe(event: events.Event) -> None:
            if isinstance(event, events.ResourceChanged):
                self.heard.append(event)

    def enqueue(self, task: str, number: int) -> list[JobHandle[object]]:
        calls = [((order,), {}) for order in range(number)]
        return self.app.tasks[task].enqueue_many(calls)

    @property
    def stripe(self) -> ResourceRecord:
        return self.app.resource("stripe").record()

    def records(self, state: State) -> list[JobRecord]:
        engine = self.app.engine
        return engine.run(engine.find(Selection(task="charge", states=(state,)), 10_000)).records

    def depth(self) -> int:
        return self.app.queue("default").record().depth.jobs

    def has_opened(self) -> None:
        wait_until(lambda: self.stripe.state == "open" and not self.records(State.RUNNING))

    def heal(self) -> None:
        """The provider is well again, and time passes until all has run."""
        self.is_down = False

        def is_done() -> bool:
            self.clock.advance(seconds=2)  # what failed is due again a second later
            return not self.depth()

        wait_until(is_done, 20, lambda: f"{self.depth()} are left: {self.stripe}")


@pytest.fixture(params=engines.MAKERS, ids=lambda maker: maker.name)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    clock = FakeClock(START)
    with request.param.place(tmp_path, clock) as url:
        made = Shop(url, clock)
        yield made
        made.app.close()


def test_a_failing_resource_is_left_alone_after_few_attempts(shop: Shop):
    shop.enqueue("charge", 1_000)

    with Worker(shop.app, concurrency=10):
        shop.has_opened()
        spent = shop.charges
        shop.clock.advance(seconds=20)  # what failed is due again, and is not run either
        shop.enqueue("mail", 1)[0].result(timeout=5)

        assert shop.charges == spent
    assert 10 <= spent <= 40  # ten in a row, and what ran or was about to beside them
    unspent = [record for record in shop.records(State.READY) if not record.attempt]
    assert len(unspent) == 1_000 - spent


def test_other_tasks_of_the_same_queue_go_on(shop: Shop):
    shop.enqueue("charge", 100)
    with Worker(shop.app, concurrency=10):
        shop.has_opened()

        mails = shop.enqueue("mail", 500)

        assert [mail.result(timeout=10) for mail in mails] == list(range(500))
        assert shop.stripe.state == "open"


def test_once_it_is_well_everything_runs_and_nothing_was_spent_waiting(shop: Shop):
    shop.enqueue("charge", 300)
    with Worker(shop.app, concurrency=10):
        shop.has_opened()
        spent = shop.charges

        shop.heal()

    assert shop.charges == 300 + spent
    done = shop.records(State.SUCCEEDED)
    assert (len(done), sum(record.attempt for record in done)) == (300, 300 + spent)
    assert shop.stripe.state == "closed"


def test_while_trying_only_a_few_run(shop: Shop):
    shop.enqueue("charge", 100)
    with Worker(shop.app, concurrency=10):
        shop.has_opened()
        spent = shop.charges

        shop.clock.advance(seconds=LONGEST_FIRST)
        wait_until(lambda: shop.stripe.trips == 2)

    assert shop.charges == spent + 1
    assert shop.stripe.reason == (
        "a trial failed; the last: ConnectionError: no route to the provider"
    )


def test_workers_share_what_they_found_out(shop: Shop):
    with Worker(shop.app, concurrency=10), Worker(shop.app, concurrency=10):
        shop.enqueue("charge", 1_000)
        shop.has_opened()
        spent = shop.charges
        assert spent <= 60

        shop.clock.advance(seconds=LONGEST_FIRST)
        wait_until(lambda: shop.stripe.trips == 2)

        assert shop.charges == spent + 1  # one trial, not one of each


@pytest.fixture(params=engines.SHARED, ids=lambda maker: maker.name)
def two_shops(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Shop]]:
    """Two on one store."""
    clock = FakeClock(START)
    with request.param.place(tmp_path, clock) as url:
        made = Shop(url, clock), Shop(url, clock)
        yield made
        for one in made:
            one.app.close()


def test_a_restart_forgets_nothing(two_shops: tuple[Shop, Shop]):
    before, after = two_shops
    before.enqueue("charge", 100)
    with Worker(before.app, concurrency=10):
        before.has_opened()
    before.app.close()

    with Worker(after.app, concurrency=10):
        after.enqueue("mail", 20)[-1].result(timeout=5)

        assert after.charges == 0
        after.heal()
    assert after.stripe.state == "closed"


def test_opened_by_hand_nothing_runs_until_it_is_closed(shop: Shop):
    shop.is_down = False
    (charge,) = shop.enqueue("charge", 1)
    shop.app.resource("stripe").open()

    with Worker(shop.app):
        shop.clock.advance(hours=10)
        shop.enqueue("mail", 1)[0].result(timeout=5)
        assert charge.state is State.READY

        shop.app.resource("stripe").close()

        assert charge.result(timeout=5) == 0


def test_every_turn_is_told(shop: Shop, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "backlane.worker")
    shop.enqueue("charge", 50)
    with Worker(shop.app, concurrency=10):
        shop.has_opened()
        shop.heal()
        wait_until(lambda: shop.heard and shop.heard[-1].state == "closed")

    assert [event.state for event in shop.heard] == ["open", "trying", "closed"]
    assert shop.heard[0].why is not None
    assert "ConnectionError" in shop.heard[0].why
    said = [line for line in caplog.messages if line.startswith("resource stripe")]
    assert [line.split(":")[0] for line in said] == [
        "resource stripe",
        "resource stripe",
        "resource stripe is well again",
    ]


def test_an_error_that_is_the_jobs_own_opens_nothing(shop: Shop):
    @shop.app.task(name="strict", resource="stripe", retry=Retry(never=(ValueError,)))
    async def strict() -> None:
        raise ValueError("the card was declined")

    with Worker(shop.app):
        for job in strict.enqueue_many([((), {})] * 50):
            wait_until(lambda job=job: job.state.is_final)

    assert shop.stripe.state == "closed"


def test_closed_by_hand_and_open_again_it_is_told_again(shop: Shop):
    shop.enqueue("charge", 50)
    with Worker(shop.app, concurrency=10):
        shop.has_opened()
        wait_until(lambda: shop.heard)  # the worker tells of it in its own time
        shop.clock.advance(seconds=1)
        shop.app.resource("stripe").close()
        wait_until(lambda: shop.stripe.state == "open")
        wait_until(lambda: len(shop.heard) == 3)

    assert [event.state for event in shop.heard] == ["open", "closed", "open"]
