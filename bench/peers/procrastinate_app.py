"""Procrastinate on psycopg, as its documentation starts it.

Runs in the peers' own environment: `procrastinate_app.install()` makes its tables,
`procrastinate_app.singles(SECONDS)` prints how many jobs a second it enqueues one by one.
"""

import os
import time

import procrastinate  # type: ignore[import-not-found, unused-ignore]

app = procrastinate.App(
    connector=procrastinate.SyncPsycopgConnector(conninfo=os.environ["PEER_URL"])
)


@app.task(name="noop")  # type: ignore[untyped-decorator, unused-ignore]
def noop(_n: int, _text: str) -> None:
    """Do nothing."""


def install() -> None:
    """Make its tables."""
    with app.open():
        app.schema_manager.apply_schema()


def singles(seconds: float) -> None:
    """Print jobs/s enqueued one after the other."""
    with app.open():
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            noop.defer(_n=done, _text="x" * 256)
            done += 1
        print(done / (time.perf_counter() - began))
