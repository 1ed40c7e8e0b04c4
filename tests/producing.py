"""Many producers on one bounded queue: `python -m tests.producing URL NUMBER HALF`.

Forked, so that fifty start in a moment. Each enqueues until the queue has refused it for
a while. With HALF every second one does so in transactions that it rolls back, one job
or several at a time. The line that each prints is how many of its jobs were accepted
for good; a last one tells the most that the store held at any look.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from collections.abc import Callable

from backlane import Backlane, Queue, QueueFull
from backlane.engine.connect import connect
from backlane.model.clock import SystemClock

BOUND = 1_000
REFUSED_FOR = 1.0  # seconds after which a producer gives up
AGAIN_AFTER = 0.03  # seconds after a refusal: fifty that spin would slow each other down
HELD_FOR = 0.01  # seconds that a transaction keeps its places before it rolls back
QUEUE = "mail"


def made(url: str) -> Backlane:
    app = Backlane(url, queues=[Queue(QUEUE, max_jobs=BOUND)])
    app.task(queue=QUEUE, name="greet")(greet)
    return app


def greet(name: str) -> None: ...


def produce(url: str) -> int:
    """Enqueue one after another; return how many were accepted."""
    app = made(url)
    taken, refused = 0, 0.0
    while not refused or time.monotonic() < refused + REFUSED_FOR:
        try:
            app.tasks["greet"].enqueue("ada")
        except QueueFull:
            refused = refused or time.monotonic()
            time.sleep(AGAIN_AFTER)
        else:
            taken, refused = taken + 1, 0.0
    app.close()
    return taken


def produce_in_vain(url: str, ended: int) -> int:
    """Enqueue in transactions that are rolled back, until all the others have ended."""
    import psycopg

    app = made(url)
    address = url.partition("?")[0]
    chance = random.Random(os.getpid())
    with psycopg.connect(address) as connection:
        greeting = app.tasks["greet"].using(connection=connection)
        while not select.select([ended], [], [], 0)[0]:
            try:
                for _ in range(chance.choice([1, 1, 3, 20])):
                    greeting.enqueue("eve")
            except QueueFull:
                pass
            time.sleep(HELD_FOR)
            connection.rollback()
    app.close()
    return 0


def forked(work: Callable[..., int], *given: object) -> int:
    """Run a producer in a child that prints what it returns; return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.write(1, f"{work(*given)}\n".encode())  # in one piece: many write at a time
        status = 0
    finally:
        os._exit(status)


def main(url: str, number: int, half: bool) -> None:
    connect(url, SystemClock()).close()  # what it imports need not be imported fifty times
    all_ended, tell_ended = os.pipe()
    vain = [forked(produce_in_vain, url, all_ended) for _ in range(number // 2 if half else 0)]
    kept = [forked(produce, url) for _ in range(number - len(vain))]
    watch, most, living = made(url), 0, set(kept)
    while living:
        known = watch.engine.run(watch.engine.list_queues())
        most = max([most, *(it.depth.jobs for it in known)])
        time.sleep(0.02)
        living -= {child for child in living if os.waitpid(child, os.WNOHANG)[0]}
    os.write(tell_ended, b".")  # nobody reads it: closed here, it is open in the children
    for child in vain:
        os.waitpid(child, 0)
    watch.close()
    print(f"most {most}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["half"])
