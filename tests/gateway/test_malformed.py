"""What is no HTTP is refused: never stored, never a fault of ours, never left hanging."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.conftest import shop
from tests.gateway.malformed import GOOD, NUMBER, requests
from tests.gateway.served import Served, served, status

from backlane.gateway.site import Limits

PATIENCE = 15.0


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Served]:
    """A gateway that waits for nobody."""
    limits = Limits(body_seconds=0.5)
    with shop(tmp_path / "jobs.db") as app, served(app, limits=limits, head_seconds=0.5) as made:
        yield made


async def answers(port: int, sent: dict[str, bytes]) -> dict[str, bytes]:
    """Send each over a connection of its own, which is kept open, and read one answer."""

    async def one(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                return head + await reader.readexactly(int(length))
        except asyncio.IncompleteReadError as error:
            return error.partial
        except ConnectionError:
            return b""
        except TimeoutError:
            return b"HTTP/1.1 000 nothing came"
        finally:
            writer.close()

    found = await asyncio.gather(*(one(request) for request in sent.values()))
    return dict(zip(sent, found, strict=True))


def test_the_request_that_all_are_bent_from_is_good(hasty: Served):
    found = asyncio.run(answers(hasty.port, {"good": GOOD}))

    assert status(found["good"]) == 202


def test_two_hundred_malformed_requests_are_refused(hasty: Served):
    sent = requests()

    began = time.monotonic()
    found = asyncio.run(answers(hasty.port, sent))
    took = time.monotonic() - began

    wrong = {
        name: answer[:60]
        for name, answer in found.items()
        if answer and not 400 <= status(answer) < 500
    }
    assert len(sent) == NUMBER
    assert not wrong
    assert took < PATIENCE
    engine = hasty.app.engine
    assert sum(queue.appended for queue in engine.run(engine.list_queues())) == 0
    assert hasty.submit("nothing").status_code == 202
