"""What the worker of the benchmark of SQS serves: `BENCH_URL`, and a file that counts."""

import os

from backlane import Backlane, Queue

QUEUE = "default"


def served(url: str, counted: str) -> Backlane:
    """Return an application whose one task leaves a byte behind: SQS alone counts nothing."""
    app = Backlane(url, queues=[Queue(QUEUE, max_jobs=1_000_000)])
    file = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @app.task(name="noop", queue=QUEUE)
    async def noop(_n: int, _text: str) -> None:
        os.write(file, b".")

    return app


if "BENCH_URL" in os.environ:
    app = served(os.environ["BENCH_URL"], os.environ["BENCH_COUNTED"])
