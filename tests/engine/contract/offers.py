"""Offers in few words, for tests that read as sentences."""

from __future__ import annotations

from typing import cast

import pytest
from tests.engine.contract.desk import Desk

from backlane.engine.offering import Ledger, Offer, Offered
from backlane.engine.protocol import Engine
from backlane.model.job import Lane

FOR_MS = 60_000


def ledger(engine: Engine) -> Ledger:
    if not hasattr(engine, "offer"):
        pytest.skip("this engine offers nothing: behind a broker the ledger does")
    return cast(Ledger, engine)


def offer(desk: Desk, *offers: Offer, for_ms: int = FOR_MS) -> Offered:
    return desk.run(ledger(desk.engine).offer(offers, for_ms))


def offered(
    desk: Desk,
    window: int = 100,
    queue: str = "mail",
    lane: Lane = Lane.SHARED,
    void_ms: int | None = None,
) -> list[bytes]:
    """Which jobs are named."""
    return [one.job for one in offer(desk, Offer(queue, window, lane, void_ms)).jobs]


def withdraw(desk: Desk, *jobs: bytes) -> None:
    desk.run(ledger(desk.engine).withdraw(jobs))
