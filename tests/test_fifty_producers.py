"""Fifty producers against a bound of a thousand: never one more, and hardly one less."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.producing import BOUND, made

from backlane import QueueFull
from backlane.model.clock import SystemClock

PRODUCERS = 50
LEAST = 950


def test_fifty_threads_never_pass_the_bound(every_url):
    taken = Counter[str]()
    begin = threading.Barrier(PRODUCERS)
    with made(every_url) as app:
        task = app.tasks["greet"]

        def produce(number: int) -> None:
            begin.wait()
            for _ in range(2 * BOUND // PRODUCERS):
                try:
                    task.enqueue("ada")
                    taken[str(number)] += 1
                except QueueFull:
                    pass

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert taken.total() == app.queue("mail").record().depth.jobs
    assert LEAST <= taken.total() <= BOUND


@pytest.mark.timeout(240)
def test_fifty_processes_never_pass_the_bound(shared_url):
    taken, most = produced(shared_url)

    with made(shared_url) as app:
        assert taken == app.queue("mail").record().depth.jobs
    assert LEAST <= taken <= most <= BOUND


@pytest.mark.timeout(240)
@pytest.mark.parametrize("maker", [engines.POSTGRES], ids=lambda maker: maker.name)
def test_places_taken_in_transactions_that_are_rolled_back_are_free_again(maker, tmp_path: Path):
    with maker.place(tmp_path, SystemClock()) as url:
        taken, most = produced(url, "half")

        with made(url) as app:
            assert taken == app.queue("mail").record().depth.jobs
    assert LEAST <= taken <= most <= BOUND


def produced(url: str, *half: str) -> tuple[int, int]:
    """Let fifty processes produce; return what they kept, and the most that was held."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.producing", url, str(PRODUCERS), *half],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    *counts, told = done.stdout.splitlines()
    assert len(counts) == PRODUCERS, done.stderr
    return sum(map(int, counts)), int(told.removeprefix("most "))
