"""The bare loops on Redis: a round trip that stores one value, and a pipeline of a hundred.

Each prints a rate. Runs in the peers' own environment.
"""

import os
import time

import redis

server = redis.Redis.from_url(os.environ["PEER_URL"])
BODY = b"x" * 320


def sets(seconds: float) -> None:
    """Print values/s stored one after the other."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        server.set(f"bare:{done % 1000}", BODY)
        done += 1
    print(done / (time.perf_counter() - began))


def piped(number: int) -> None:
    """Print values/s stored a hundred at a time."""
    began = time.perf_counter()
    for first in range(0, number, 100):
        pipe = server.pipeline(transaction=False)
        for n in range(first, min(first + 100, number)):
            pipe.xadd("bare:stream", {b"body": BODY, b"n": str(n)})
        pipe.execute()
    print(number / (time.perf_counter() - began))
    server.delete("bare:stream")
