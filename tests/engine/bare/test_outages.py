"""A node that is killed under load, with a worker and a producer at a broker alone."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.bare.test_worker import Parlour
from tests.servers import rabbitmq
from tests.servers.missing import Missing, give_up
from tests.servers.rabbitmq import Node

KILLS = 10 if os.environ.get("BACKLANE_PROVE") == "1" else 1
PRODUCER = """
from backlane import BacklaneError
import uuid
n = 0
acknowledged = open(os.environ["PARLOUR_DIARY"] + ".sent", "a", buffering=1)
while not os.path.exists(os.environ["PARLOUR_DIARY"] + ".stop"):
    n += 1
    text = f"{os.getpid()}-{n}"
    try:
        note.enqueue(text)
    except BacklaneError:
        time.sleep(0.05)
        continue
    acknowledged.write(text + chr(10))
    time.sleep(0.002)
"""


@pytest.fixture
def own() -> Iterator[Node]:
    try:
        made = Node()
    except Missing as why:
        give_up("rabbitmq", why)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_when_the_node_is_killed(own: Node, tmp_path: Path) -> None:
    with contextlib.closing(Parlour(f"{own.url}?prefix={rabbitmq.prefix()}", tmp_path)) as parlour:
        sent, stop = tmp_path / "diary.sent", tmp_path / "diary.stop"
        parlour.work()
        producer = parlour.start(PRODUCER)
        parlour.until(lambda lines: len(lines) > 50)
        back = []
        for _ in range(KILLS):
            own.kill()
            own.start()
            began, before = time.monotonic(), len(parlour.lines())
            parlour.until(lambda lines, before=before: len(lines) > before + 20)
            back.append(time.monotonic() - began)
        stop.touch()
        assert producer.wait(30) == 0
        acknowledged = sent.read_text().split()
        parlour.until(lambda lines: set(lines) >= set(acknowledged))

    assert len(acknowledged) > 50
    assert max(back) < 10, back
