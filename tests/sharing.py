"""How test processes share the files: one computes while the others wait.

Half of the suite's time is waiting: for leases to lapse, for processes to come and to be
gone, for rates to be kept. Two processes that both wait leave the cores idle, so there are
more of them than cores, and what waits is dealt out beside what computes. A file is one
process's. In both heaps the longest go first: what is left for the end is short, and all
are done at about the same time.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# In the order of what they take, from half a minute down.
WAITING = (
    *(f"tests/engine/{it}" for it in ("rabbit/test_outages", "sqs/test_faults", "bare/test_bare")),
    *(f"tests/faults/test_{it}" for it in ("rabbitmq", "sqs", "move", "broker_crash_points")),
    "tests/faults/",
    *(f"tests/worker/test_{it}" for it in ("deaths", "jobs", "limited")),
    *("tests/examples/test_timeline", "tests/client/test_faults", "tests/cli/test_processes"),
    *("tests/worker/", "tests/demo/test_play", "tests/engine/redis/test_failover"),
    *("tests/engine/rabbit/", "tests/engine/sqs/", "tests/engine/bare/"),
    *("tests/test_fifty_producers", "tests/test_bounds", "tests/test_crowd", "tests/test_on_full"),
    *(f"tests/engine/postgres/test_{it}" for it in ("diagnose", "driver", "presence")),
    *("tests/gateway/test_serve", "tests/gateway/test_slow", "tests/gateway/test_stream"),
    *("tests/client/", "tests/examples/", "tests/cli/test_servers", "tests/cli/test_mover"),
    *("tests/engine/redis/test_lost_bells", "tests/engine/redis/test_diagnose"),
)
COMPUTING = (
    *("tests/engine/test_state_machine", "tests/engine/test_offers_alike"),
    *(f"tests/engine/contract/test_{it}" for it in ("claim", "bells", "settle", "sweep")),
    *("tests/engine/sqlite/test_disk_faults", "tests/engine/contract/test_limited_queues"),
    *("tests/engine/sqlite/test_merged_appends", "tests/engine/test_limits_alike"),
    *("tests/bad_input/", "tests/gateway/test_schemathesis"),
    *("tests/engine/contract/", "tests/engine/", "tests/typing/", "tests/house/"),
)


class Sharing(LoadFileScheduling):  # type: ignore[misc]  # xdist's way to be told
    """Deals a file out to a process that is about to have none."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        computes = node is self.nodes[0]
        first = min(self.workqueue, key=lambda file: turn(file, computes))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


def turn(file: str, computes: bool) -> tuple[bool, int]:
    """What a process takes before what: its own heap, then the other one's."""
    waits = file.startswith(WAITING)
    return waits == computes, _place(file, WAITING if waits else COMPUTING)


def _place(file: str, order: tuple[str, ...]) -> int:
    return next((n for n, it in enumerate(order) if file.startswith(it)), len(order))
