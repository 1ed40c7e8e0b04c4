"""While a store is moved, a gateway tells its callers when to come again, and the client does."""

from __future__ import annotations

import threading
import time

import httpx2
import pytest

from backlane.engine.moving import Seal
from backlane.errors import EngineUnavailable, QueueFull

NEW = "postgresql://jobs@db.example/shop"


def seal(app, seal: Seal | None) -> None:
    app.engine.run(app.engine.seal(seal))


def test_a_client_comes_again_until_the_store_takes_jobs(caller, app, idle_url) -> None:
    seal(app, Seal(NEW))
    opener = threading.Timer(1.5, seal, [app, None])
    opener.start()
    client = caller.client(idle_url, deadline=20)
    began = time.monotonic()

    caller.get(client.submit("double", {"number": 1}))

    assert 1.4 <= time.monotonic() - began <= 12
    (queue,) = [it for it in app.engine.run(app.engine.list_queues()) if it.depth.jobs]
    assert queue.depth.jobs == 1
    opener.join()


def test_a_deadline_that_is_too_short_is_told_the_limit(caller, app, idle_url) -> None:
    seal(app, Seal(NEW))
    client = caller.client(idle_url, deadline=1)

    with pytest.raises(QueueFull) as refused:
        caller.get(client.submit("double", {"number": 1}))

    assert refused.value.limit == "moving"
    assert 2 <= refused.value.retry_after.total_seconds() <= 4


def test_where_a_store_was_moved_to_is_not_told_to_clients(caller, app, idle_url) -> None:
    seal(app, Seal(NEW, is_done=True))
    client = caller.client(idle_url, deadline=1)

    with pytest.raises(EngineUnavailable) as refused:
        caller.get(client.submit("double", {"number": 1}))

    assert "moved" in str(refused.value)
    assert "db.example" not in str(refused.value)


def test_a_refusal_has_a_time_in_its_header(app, idle_url) -> None:
    seal(app, Seal(NEW))

    answer = httpx2.post(f"{idle_url}/v1/tasks/double/jobs", json={"arguments": {"number": 1}})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] in ("2", "3", "4")
    assert "db.example" not in answer.text
