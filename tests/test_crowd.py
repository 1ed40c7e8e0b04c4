"""Many coroutines of one event loop at one full queue."""

from __future__ import annotations

import asyncio
import threading
import time

from backlane import Backlane, Queue, QueueFull
from backlane.worker import Worker

CALLERS, TRIES = 25, 100


def test_callers_of_one_loop_that_are_refused_at_once_all_get_their_answer(shared_url: str):
    """A web process stood still for ever: one caller waited for the store while it held the
    queue's clocks, and the next one waited for these with the whole loop."""
    app = Backlane(shared_url, queues=[Queue("few", max_jobs=20, concurrency=2)])

    @app.task(name="nap", queue="few")
    def nap() -> None:
        time.sleep(0.01)

    async def caller() -> list[str]:
        answers = []
        for _ in range(TRIES):
            try:
                await nap.aenqueue()
                answers.append("accepted")
            except QueueFull:
                answers.append("refused")
            await asyncio.sleep(0.01)
        return answers

    async def crowd() -> list[list[str]]:
        return await asyncio.gather(*(caller() for _ in range(CALLERS)))

    told: list[list[str]] = []
    with app, Worker(app):
        for _ in range(20):
            nap.enqueue().result(timeout=5)  # so that the speed of the queue is known
        # In a thread, so that a loop that stands still fails the test and does not end it.
        thread = threading.Thread(target=lambda: told.extend(asyncio.run(crowd())), daemon=True)
        thread.start()
        thread.join(30)

        assert [len(answers) for answers in told] == [TRIES] * CALLERS
    assert {answer for answers in told for answer in answers} == {"accepted", "refused"}
