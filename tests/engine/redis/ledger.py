"""What the keys of a namespace hold, counted anew from the rows of its jobs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
import redis

from backlane.engine.redis.record.sheet import Row, read_row

SCHEDULED, READY, BLOCKED, RUNNING, FAILED = 1, 2, 3, 4, 6
LEVEL = 2**43
BLOCK = 1024
# What is left when all jobs are gone: what is known of queues, resources and the store.
SETTINGS = {"meta", "queues", "resources", "resource_names", "breakers", "down", "rung"}
SETTING_KINDS = {"q", "sources"}


class Ledger:
    """The keys of a namespace, as they are and as they should be."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._prefix = f"backlane:1:{{{namespace}}}:"

    def names(self) -> set[str]:
        """The keys, without their prefix."""
        found = self._client.keys(f"{self._prefix.replace('{', '[{]').replace('}', '[}]')}*")
        return {key.decode().removeprefix(self._prefix) for key in found}

    def rows(self) -> dict[bytes, Row]:
        return {job: read_row(text) for job, text in self._hash("rows").items()}

    def _hash(self, name: str) -> dict[bytes, bytes]:
        return self._client.hgetall(self._prefix + name)

    def _set(self, name: str) -> dict[bytes, float]:
        return dict(self._client.zrange(self._prefix + name, 0, -1, withscores=True))

    # -- sorted sets: each job is where its row says, and nowhere else --

    def places(self) -> dict[str, dict[bytes, float]]:
        kinds = ("ready:", "done:", "failed:", "scheduled", "leases", "blocked", "dead")
        names = [it for it in self.names() if it.startswith((*kinds, "deadlines"))]
        return {name: self._set(name) for name in names}

    def places_by_rows(self) -> dict[str, dict[bytes, float]]:
        found: dict[str, dict[bytes, float]] = defaultdict(dict)
        for job, row in self.rows().items():
            member = row.seq.to_bytes(6) + job
            key, score = _where(row)
            found[key][member] = score
            if row.state == BLOCKED and row.extra is not None and row.extra.on:
                key, score = self._at_gate(row)
                found[key][member] = score
            if row.state == FAILED:
                found["dead"][member] = row.seq
            if row.deadline is not False and row.state < RUNNING:
                found["deadlines"][member] = row.deadline
        return dict(found)

    def _at_gate(self, row: Row) -> tuple[str, float]:
        """Where a blocked job waits for what it uses."""
        it = row.extra
        assert it is not None
        assert isinstance(it.uses, tuple)
        use = it.uses[it.on - 1]
        place = it.virtual or row.place
        score = place if use[0] == "t" else (9 - row.rank) * LEVEL + place
        number = msgspec.msgpack.decode(self._hash("gates")[use.encode()])[0]
        return f"blocked:{number}:{row.queue}", score

    # -- gates: who has them, and how --

    def gates(self) -> dict[str, tuple[Any, ...]]:
        """Jobs, holders, ready and blocked by queue, of each gate that jobs have."""
        found = {}
        for use, kept in self._hash("gates").items():
            _, jobs, held, _, _, ready, blocked = msgspec.msgpack.decode(kept, strict=False)
            if jobs:
                found[use.decode()] = (jobs, held, _by_queue(ready), _by_queue(blocked))
        return found

    def gates_by_rows(self) -> dict[str, tuple[Any, ...]]:
        jobs: Counter[str] = Counter()
        held: Counter[str] = Counter()
        ready: dict[str, Counter[int]] = defaultdict(Counter)
        blocked: dict[str, Counter[int]] = defaultdict(Counter)
        for row in self.rows().values():
            it = row.extra
            if it is None or isinstance(it.uses, bool) or row.state > RUNNING:
                continue
            turns = () if isinstance(it.turns, bool) else it.turns
            for at, use in enumerate(it.uses, 1):
                jobs[use] += 1
                held[use] += at in turns if use[0] == "t" else row.state == RUNNING
                ready[use][row.queue] += row.state == READY
                blocked[use][row.queue] += row.state == BLOCKED and it.on == at
        return {use: (jobs[use], held[use], dict(+ready[use]), dict(+blocked[use])) for use in jobs}

    # -- counters --

    def counters(self) -> dict[str, dict[str, int]]:
        names = [it for it in self.names() if it.startswith("q:")]
        return {name: _counted(self._hash(name)) for name in names}

    def counters_by_rows(self) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self.rows().values():
            counter = found[f"q:{row.queue}"]
            if row.state > RUNNING:
                continue
            counter[f"s{row.state}"] += 1
            counter["bytes"] += row.size
            if row.state == READY:
                counter[f"r{row.priority}"] += 1
            if row.state == RUNNING:
                counter[f"u{row.priority}"] += 1
        names = [it for it in self.names() if it.startswith("q:")]
        return {name: {key: n for key, n in found[name].items() if n} for name in names}

    def groups(self) -> dict[str, dict[str, int]]:
        names = [it for it in self.names() if it.startswith("g:")]
        return {name: {k.decode(): int(n) for k, n in self._hash(name).items()} for name in names}

    def groups_by_rows(self) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self.rows().values():
            if isinstance(row.group, str) and row.state <= RUNNING:
                found[f"g:{row.queue}"][row.group] += 1
        return {name: dict(counter) for name, counter in found.items()}

    # -- all jobs in order, and by name --

    def order(self) -> dict[int, bytes]:
        found = {}
        for name in self.names():
            if name.startswith("order:"):
                ids = self._client.get(self._prefix + name) or b""
                first = int(name.removeprefix("order:")) * BLOCK
                for at in range(len(ids) // 16):
                    job = ids[at * 16 : at * 16 + 16]
                    if any(job):
                        found[first + at] = job
        return found

    def order_by_rows(self) -> dict[int, bytes]:
        return {row.seq: job for job, row in self.rows().items()}

    def blocks(self) -> dict[int, int]:
        return {int(block): int(number) for block, number in self._hash("orders").items()}

    def blocks_by_rows(self) -> dict[int, int]:
        return dict(Counter(row.seq // BLOCK for row in self.rows().values()))

    def names_held(self) -> dict[str, set[bytes]]:
        return {name: set(self._set(name)) for name in ("by_key", "by_group")}

    def names_by_rows(self) -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = {"by_key": set(), "by_group": set()}
        for job, row in self.rows().items():
            member = row.seq.to_bytes(6) + job
            if isinstance(row.group, str):
                found["by_group"].add(row.group.encode() + b"\0" + member)
            if isinstance(row.key, str):
                length, _, rest = row.key.partition(":")
                found["by_key"].add(rest.encode()[int(length) :] + b"\0" + member)
        return found

    def flagged(self) -> dict[bytes, bytes]:
        return self._hash("flagged")

    def flagged_by_rows(self) -> dict[bytes, bytes]:
        return {job: str(row.owner).encode() for job, row in self.rows().items() if row.cancelling}

    def strangers(self) -> dict[str, set[bytes]]:
        """What is kept of jobs that have no row."""
        known = set(self.rows())
        kept = {name: set(self._hash(name)) for name in ("bodies", "results", "errors", "progress")}
        kept["keys"] = {held for held in self._hash("keys").values() if len(held) == 16}
        return {name: jobs - known for name, jobs in kept.items() if jobs - known}

    def check(self) -> None:
        """Compare all of it."""
        assert self.places() == self.places_by_rows()
        assert self.gates() == self.gates_by_rows()
        assert self.counters() == self.counters_by_rows()
        assert self.groups() == self.groups_by_rows()
        assert self.order() == self.order_by_rows()
        assert self.blocks() == self.blocks_by_rows()
        assert self.names_held() == self.names_by_rows()
        assert self.flagged() == self.flagged_by_rows()
        assert self.strangers() == {}
        assert set(self._hash("bodies")) == set(self.rows())

    def leaks(self) -> set[str]:
        """Keys that should be gone when there is no job."""
        return {
            name
            for name in self.names()
            if name not in SETTINGS and name.partition(":")[0] not in SETTING_KINDS
        }


def _where(row: Row) -> tuple[str, Any]:
    if row.state == READY:
        key = f"ready:{row.queue}:{row.lane}"
        if row.resource is not False:
            key += f":{row.resource}"
        place = row.extra.virtual if row.extra and row.extra.virtual else row.place
        return key, (9 - row.rank) * LEVEL + place
    if row.state == RUNNING:
        return "leases", row.lease_end
    if row.state == SCHEDULED:
        return "scheduled", row.place
    if row.state == BLOCKED:
        return "blocked", row.seq
    if row.state == FAILED:
        return f"failed:{row.queue}", row.ended
    return f"done:{row.queue}", row.ended


def _by_queue(counts: Any) -> dict[int, int]:
    """Counts by queue; those of queues 1, 2, .. come as a list."""
    if isinstance(counts, list):
        return dict(enumerate(counts, 1))
    return {int(queue): number for queue, number in counts.items()}


def _counted(fields: dict[bytes, bytes]) -> dict[str, int]:
    wanted = {"s1", "s2", "s3", "s4", "bytes", *(f"{it}{p}" for it in "ru" for p in range(10))}
    return {
        name.decode(): int(value)
        for name, value in fields.items()
        if name.decode() in wanted and int(value)
    }
