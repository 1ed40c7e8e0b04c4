"""What rings, and how a bell is heard out."""

from __future__ import annotations

from backlane.engine.hearing import Bell
from backlane.engine.protocol import Admission
from backlane.engine.redis import RedisEngine
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job

SOON = 5.0  # real seconds that a ring may take on a busy machine; it is heard at once


def job(queue: str = "mail") -> Job:
    return Job(id=new_id(SystemClock().wall_ms()), queue=queue, task="send", body=b"{}")


def append(engine: RedisEngine, *queues: str) -> list[bytes]:
    jobs = [job(queue) for queue in queues or ("mail",)]
    assert isinstance(engine.run(engine.append(jobs, Admission())), list)
    return [one.id for one in jobs]


def quiet(bell: Bell) -> None:
    while bell.heard(0.05):
        pass
