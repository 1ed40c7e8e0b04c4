"""A producer that enqueues without a pause until its standard input ends."""

import os
import sys
import threading

from bench.bare import PAYLOAD
from bench.workload import workload


def main() -> None:
    """Enqueue, say so once, go on, and print the number at the end."""
    noop = workload(os.environ["BENCH_URL"]).noop
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    done = 0
    while not ended.is_set():
        noop.enqueue(done, PAYLOAD)
        done += 1
        if done == 1:
            print("started", flush=True)
    print(done, flush=True)


if __name__ == "__main__":
    main()
