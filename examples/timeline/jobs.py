"""What is done in the background: sending a post to every follower, and counting hearts."""

from __future__ import annotations

import time
from pathlib import Path

from examples.timeline.people import People

from backlane import Backlane, Context, Queue

FILE = Path("timeline.db")  # in the current directory: jobs, people and posts alike
CHUNK = 250
CHUNK_SECONDS = 0.15  # what a push service would take, so that there is something to watch
HEART_SECONDS = 0.04
BOUND = 30  # hearts that may wait or run: few, so that a flood meets the bound

app = Backlane(
    f"sqlite:///{FILE}",
    queues=[
        Queue("fan-out", max_jobs=1_000),
        Queue("hearts", max_jobs=BOUND, concurrency=4),  # so it counts about 100 a second
    ],
)
people = People(FILE)


@app.task(name="timeline.fan_out", queue="fan-out")
def fan_out(context: Context, post: int) -> int:
    """Write a post to every follower's timeline; return how many there were.

    Cut off half-way it runs again from the start, which changes nothing for those who
    have the post already.
    """
    sent = people.post(post)
    if sent is None:
        return 0
    readers = people.followers(sent.author.handle)
    for start in range(0, len(readers), CHUNK):
        context.check()
        people.deliver(post, readers[start : start + CHUNK])
        time.sleep(CHUNK_SECONDS)
        done = min(start + CHUNK, len(readers))
        context.progress(done / len(readers), f"{done:,} of {len(readers):,} followers")
    people.has_delivered(post)
    return len(readers)


@app.task(name="timeline.heart", queue="hearts", keep_result=False)
def heart(context: Context, post: int) -> None:
    """Count one heart for a post."""
    time.sleep(HEART_SECONDS)
    people.add_heart(post, context.id.bytes)
