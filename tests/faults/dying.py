"""A process that comes to one point of a job's way through a broker, and stays there.

`python dying.py TRANSPORT LEDGER PREFIX STOP NUMBER`: it enqueues so many jobs, says "there"
when it is at the point, and waits to be killed.
"""

from __future__ import annotations

import sys
import threading
from typing import cast

from tests.engine.brokered.stops import Stop, Stopping

from backlane.engine.brokered import Brokered
from backlane.engine.connect import connect
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.transports import rabbit, sqs
from backlane.model.clock import SystemClock
from backlane.model.ids import new_ids
from backlane.model.job import Job

LEASE_MS = 1_500


def main(transport: str, ledger: str, prefix: str, stop: str, number: str) -> None:
    kept = cast("Ledger", connect(ledger, SystemClock()))
    ids = new_ids(SystemClock().wall_ms(), int(number))
    jobs = [Job(id=made, queue="mail", task="send", body=b"{}") for made in ids]
    if stop == "BEFORE_RELAY":
        kept.run(kept.append(jobs, Admission()))
        there()
    opener = rabbit.open_url if transport.startswith("amqp") else sqs.open_url
    carrier = Stopping(opener(transport), Stop[stop])
    engine = Brokered(carrier, kept, prefix=prefix)
    engine.run(engine.append(jobs, Admission()))
    while not carrier.is_there.is_set():
        engine.run(engine.claim(Wanted("dying", 50, LEASE_MS, ("mail",))))
        carrier.is_there.wait(0.02)
    there()


def there() -> None:
    print("there", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
