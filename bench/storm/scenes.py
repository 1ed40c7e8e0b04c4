"""Scenes: the storms that are simulated."""

from __future__ import annotations

from backlane.model.queue import Bounds
from bench.storm.world import Scene

# A queue that takes 100 jobs a second has 80 a second to do when 5,000 callers come at once.
CROWD = Scene(
    bounds=Bounds(max_jobs=1_000),
    slots=10,
    service_ms=100,
    seconds=200,
    load=((200, 80),),
    crowd=5_000,
)

# Jobs of 20 ms on 20 slots, offered at three times what these take for a minute, then at
# nine tenths of it.
OVERLOAD_SECONDS = 60
_LOAD = ((OVERLOAD_SECONDS, 3_000.0), (80.0, 900.0))
_BOUNDS = Bounds(max_wait_ms=5_000)
# 200 clients who each wait for their turn before they call again; and callers who come
# once, and never again.
CLIENTS = Scene(bounds=_BOUNDS, slots=20, service_ms=20, seconds=80, load=_LOAD, clients=200)
PASSERS_BY = Scene(bounds=_BOUNDS, slots=20, service_ms=20, seconds=80, load=_LOAD)
