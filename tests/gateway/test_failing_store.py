"""A store that fails for a while: 503 with when to come again, and nothing acknowledged is lost."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from tests.engine.sqlite.disk import FailingDisk
from tests.gateway.conftest import shop
from tests.gateway.served import Served, served

from backlane import Backlane
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id

CODES = {
    "a write fails": apsw.SQLITE_IOERR_WRITE,
    "a sync fails": apsw.SQLITE_IOERR_FSYNC,
    "the disk is full": apsw.SQLITE_FULL,
    "the disk is read-only": apsw.SQLITE_READONLY,
}


def job_id() -> str:
    return str(uuid.UUID(bytes=new_id(SystemClock().wall_ms())))


@contextmanager
def on_disk(app: Backlane, path: Path, disk: FailingDisk) -> Iterator[None]:
    clock = SystemClock()
    with app._place.replaced(SqliteEngine(path, clock=clock, vfs=disk.name), clock):
        yield
        app.engine.close()


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_disk_that_fails_is_told_and_recovers(tmp_path: Path, code: int):
    disk, ids = FailingDisk(code), [job_id() for _ in range(12)]
    app = shop(tmp_path / "jobs.db")
    with on_disk(app, tmp_path / "jobs.db", disk), served(app) as site:
        assert site.submit("nothing").status_code == 202
        disk.arm(1, lasting=True)

        refused = [site.submit("nothing", id=job) for job in ids]
        sent = site.client.post("/v1/queues/orders/messages", content=b"x")
        paused = site.post("/v1/queues/default/pause")

        for answer in (*refused, sent, paused):
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"].removeprefix("urn:backlane:") in (
                "unavailable",
                "outcome-unknown",
            )
            assert int(answer.headers["retry-after"]) >= 1
            assert str(tmp_path) not in answer.text
        assert site.client.get("/healthz").status_code == 200

        disk.mend()
        again = [site.submit("nothing", id=job) for job in ids]
        assert {answer.status_code for answer in again} == {202}
        assert [answer.json()["id"] for answer in again] == ids
        assert site.client.get("/v1/queues/default").json()["depth"]["jobs"] == 1 + len(ids)


def test_the_same_id_at_once_is_one_job_and_one_answer(fresh: Served):
    job = job_id()

    with ThreadPoolExecutor(50) as pool:
        calls = [
            pool.submit(fresh.submit, "mail.send", arguments={"user_id": 1}, id=job)
            for _ in range(50)
        ]
    answers = [call.result() for call in calls]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert fresh.client.get("/v1/queues/mail").json()["counters"]["appended"] == 1


def test_a_key_that_many_use_at_once_is_the_firsts(fresh: Served):
    headers = {"Idempotency-Key": "once"}

    with ThreadPoolExecutor(50) as pool:
        calls = [
            pool.submit(fresh.submit, "mail.send", arguments={"user_id": each}, headers=headers)
            for each in range(50)
        ]
    found = Counter(call.result().status_code for call in calls)

    assert found == {202: 1, 422: 49}
    assert fresh.client.get("/v1/queues/mail").json()["counters"]["appended"] == 1
