"""Tasks that pay: each adds 1 to an account in the transaction that completes its job.

They linger before, within and after the transaction, so that a kill finds them at every
point. An account that is not exactly 1 in the end tells of an effect lost or repeated.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass
from typing import Any

from backlane import Backlane, Context, Retry, Task

LINGER_SECONDS = 0.012
PATIENT = Retry(attempts=1000, base=0.01, cap=0.05)  # no kill may be the last

ACCOUNTS = "create table account (id integer primary key, paid integer not null default 0)"
PAY = "update account set paid = paid + 1 where id = {}"


def in_thread(context: Context, account: int) -> int:
    """Pay in a thread."""
    time.sleep(_while())
    with context.transaction() as tx:
        tx.connection.execute(PAY.format(int(account)))
        time.sleep(_while())
        tx.complete(os.getpid())
    time.sleep(_while())
    return -1


async def in_loop(context: Context, account: int) -> int:
    """Pay as a coroutine."""
    await asyncio.sleep(_while())
    async with context.transaction() as tx:
        paid = tx.connection.execute(PAY.format(int(account)))
        if asyncio.iscoroutine(paid):
            await paid
        await asyncio.sleep(_while())
        tx.complete(os.getpid())
    await asyncio.sleep(_while())
    return -1


def in_process(context: Context, account: int) -> int:
    """Pay alone in a process."""
    return in_thread(context, account)


def _while() -> float:
    return random.uniform(0, LINGER_SECONDS)


@dataclass(frozen=True, slots=True)
class Payer:
    """An application on some store, and its tasks."""

    app: Backlane
    tasks: tuple[Task[[int], Any, int], ...]


def payer(url: str) -> Payer:
    """Make the application on the store that `url` names."""
    app = Backlane(url)
    return Payer(
        app,
        (
            app.task(retry=PATIENT)(in_thread),
            app.task(retry=PATIENT)(in_loop),
            app.task(retry=PATIENT, runs_in="process")(in_process),
        ),
    )


app = payer(os.environ["FAULTS_URL"]).app if "FAULTS_URL" in os.environ else None
"""What the workers of a fleet serve."""
