"""A task of which three jobs run at a time, over all workers."""

from __future__ import annotations

import asyncio
import os
import random

from backlane import Backlane, Limit, Retry, Task

AT_A_TIME = 3
LINGER_SECONDS = 0.03
PATIENT = Retry(attempts=1000, base=0.01, cap=0.05)  # no kill may be the last


async def linger(number: int) -> int:
    """Take a while."""
    await asyncio.sleep(random.uniform(0, LINGER_SECONDS))
    return number


def limited(url: str) -> tuple[Backlane, Task[[int], object, int]]:
    """Make the application on the store that `url` names."""
    app = Backlane(url)
    return app, app.task(retry=PATIENT, limit=Limit(concurrency=AT_A_TIME))(linger)


app = limited(os.environ["FAULTS_URL"])[0] if "FAULTS_URL" in os.environ else None
"""What the workers of a fleet serve."""
