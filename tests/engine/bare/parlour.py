"""An application at a broker alone, whose tasks write down that they ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

from backlane import Backlane, Queue, Retry

app = Backlane(
    os.environ["PARLOUR_URL"],
    queues=[Queue("mail"), Queue("small", max_jobs=5)],
)
diary = Path(os.environ["PARLOUR_DIARY"])


def write(line: str) -> None:
    with diary.open("a") as file:
        file.write(line + "\n")


@app.task(queue="mail")
async def note(text: str) -> None:
    write(text)


@app.task(queue="mail", retry=Retry(attempts=3, base=0.01, cap=0.02))
async def fail(text: str) -> None:
    write(text)
    raise OSError("no route to host")


@app.task(queue="mail")
def linger(text: str, seconds: float) -> None:
    write(f"{text} begins")
    time.sleep(seconds)
    write(f"{text} ends")


@app.task(queue="mail", runs_in="process")
def alone(text: str) -> None:
    write(text)


@app.task(queue="small")
async def little(text: str) -> None:
    write(text)
