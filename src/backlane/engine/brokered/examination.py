"""Examination: how broker and ledger get along, as this process sees it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from backlane.engine.brokered.depot import Depot
from backlane.engine.protocol import Finding
from backlane.engine.transport import Transport
from backlane.errors import EngineUnavailable

SECONDS = 15.0  # for what the broker has to say


def examine(depot: Depot, transport: Transport, queues: Iterable[str]) -> list[Finding]:
    """Ask the broker, also of these queues of its, and look at the relay."""
    return [*_of_transport(depot, transport, queues), _of_relay(depot)]


def _of_transport(depot: Depot, transport: Transport, queues: Iterable[str]) -> list[Finding]:
    try:
        return depot.background.run(transport.diagnose(dict.fromkeys(queues)), SECONDS)
    except (EngineUnavailable, TimeoutError) as error:
        return [
            Finding(
                subject="broker",
                state="error",
                text=f"{transport.url}: {error or 'no answer'}; workers take jobs from the "
                "ledger until it is back",
                remedy="start the broker, or correct its address",
            )
        ]


def _of_relay(depot: Depot) -> Finding:
    trouble = depot.relay.trouble
    if trouble.since is not None:
        seconds = time.monotonic() - trouble.since
        return Finding(
            subject="relay",
            state="warning",
            text=f"{trouble.name} has taken no message for {seconds:.0f} s: {trouble.reason}",
            remedy="look at the broker; jobs are kept in the ledger meanwhile",
        )
    belts = [belt for belt in list(depot.belts.values()) if belt.number_published]
    number = sum(belt.number_published for belt in belts)
    text = f"{number:,} messages published by this process"
    customs = depot.customs
    if customs.quarantined:
        return Finding(
            subject="relay",
            state="warning",
            text=f"{text}; {customs.quarantined:,} of others are in quarantine",
            remedy="read the message queues quarantine.<queue>",
        )
    return Finding(subject="relay", state="ok", text=text)
