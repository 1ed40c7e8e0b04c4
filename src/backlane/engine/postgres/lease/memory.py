"""Memory: what one process remembers of the store from one verb to the next."""

from __future__ import annotations

from backlane.engine.postgres.lease.floor import Floors
from backlane.engine.postgres.lease.windows import Windows


class Memory:
    """What claims and offers of one process remember from one to the next."""

    def __init__(self) -> None:
        self.floors = Floors()
        self.windows = Windows()
        self.has_resources = False
        self.queues: dict[int, str] = {}
        self.resources: dict[int, str] = {}

    def forget(self) -> None:
        """Look at all lines from the beginning: something went back to its place."""
        self.floors.forget()
        self.windows.forget()
