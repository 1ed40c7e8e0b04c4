"""Several processes on one file: forks, kills, pauses, a first use at the same moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement

from backlane.engine.protocol import Admission, Wanted
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.store.gate import Gate
from backlane.engine.sqlite.store.migrations import available
from backlane.errors import EngineBusy
from backlane.model.job import State

PRELUDE = """
import os, sys, time
from pathlib import Path
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.sqlite import SqliteEngine
from backlane.model.ids import new_ids
from backlane.model.job import Job
path = Path(sys.argv[1])
engine = SqliteEngine(path)
def jobs(number):
    return [Job(id=id, queue="mail", task="send", body=b"{}")
            for id in new_ids(time.time_ns() // 1_000_000, number)]
def say(word):
    print(word, flush=True)
"""


class Others:
    """Other processes on the same file, ended with the test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, script: str, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(self._path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.fixture
def others(path: Path) -> Iterator[Others]:
    made = Others(path)
    yield made
    made.end()


def heard(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


HOLDER = """
enlisted = engine.enlist("them")
engine.run(engine.append(jobs(2), Admission()))
engine.run(engine.claim(Wanted(owner="them", number=2, lease_ms=60_000, queues=("mail",))))
say("holding")
time.sleep(60)
"""


def test_a_killed_owner_is_known_dead_at_once(desk: Desk, others: Others):
    holder = others.start(HOLDER)
    assert heard(holder) == "holding"
    before = asyncio.run(desk.engine.departed())

    holder.kill()
    holder.wait()
    after = asyncio.run(desk.engine.departed())
    again = desk.claim(departed=after)

    assert (before, after) == ((), ("them",))
    assert [lease.attempt for lease in again.leases] == [1, 1]
    assert asyncio.run(desk.engine.departed()) == ()


def test_a_stopped_owner_is_not_dead(desk: Desk, others: Others):
    holder = others.start(HOLDER)
    assert heard(holder) == "holding"

    holder.send_signal(signal.SIGSTOP)
    departed = asyncio.run(desk.engine.departed())
    holder.send_signal(signal.SIGCONT)

    assert departed == ()


def test_an_owner_lives_while_any_process_holds_its_descriptor(desk: Desk, others: Others):
    parent = others.start(
        """
        import subprocess
        enlisted = engine.enlist("them")
        engine.run(engine.append(jobs(1), Admission()))
        engine.run(engine.claim(Wanted(owner="them", number=1, lease_ms=60_000, queues=("mail",))))
        child = subprocess.Popen(["sleep", "60"], pass_fds=enlisted.descriptors)
        say(child.pid)
        time.sleep(60)
        """
    )
    child = int(heard(parent))

    parent.kill()
    parent.wait()
    with_child = asyncio.run(desk.engine.departed())
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 5
    while not (alone := asyncio.run(desk.engine.departed())) and time.monotonic() < until:
        time.sleep(0.01)  # the child is nobody's to wait for

    assert (with_child, alone) == ((), ("them",))


def test_files_of_dead_owners_without_leases_are_removed(engine: SqliteEngine, path: Path):
    engine.enlist("gone").close()
    living = engine.enlist("living")

    assert asyncio.run(engine.departed()) == ()

    assert os.listdir(f"{path}-side/owners") == ["o.living"]
    living.close()


def test_a_killed_writer_leaves_only_what_it_acknowledged(desk: Desk, others: Others):
    writer = others.start(
        """
        while True:
            (job,) = jobs(1)
            engine.run(engine.append([job], Admission()))
            say(job.id.hex())
        """
    )
    acknowledged = [heard(writer) for _ in range(20)]
    writer.kill()
    rest = writer.stdout.read().split()
    if rest and len(rest[-1]) < 32:
        rest.pop()  # killed while it said so

    assert all(desk.is_known(bytes.fromhex(job)) for job in acknowledged + rest)
    assert 0 <= desk.depth().ready - len(acknowledged + rest) <= 1


def test_two_first_uses_at_once_migrate_once(others: Others, engine: SqliteEngine):
    starters = [
        others.start(
            """
            say("ready")
            sys.stdin.readline()
            say(engine.migrate())
            engine.run(engine.append(jobs(10), Admission()))
            say("done")
            """
        )
        for _ in range(4)
    ]
    assert [heard(one) for one in starters] == ["ready"] * 4
    for one in starters:
        one.stdin.write("go\n")
        one.stdin.flush()

    applied = sorted(heard(one) for one in starters)
    done = [heard(one) for one in starters]

    assert applied == [str([name for _, name, _ in available()]), "[]", "[]", "[]"]
    assert done == ["done"] * 4
    assert engine.run(engine.list_queues())[0].depth.ready == 40


def test_two_processes_share_the_work_and_lose_none_of_it(desk: Desk, others: Others):
    script = """
    engine.run(engine.append(jobs(300), Admission()))
    from backlane.model.outcome import Succeeded, Settlement
    settled, ran = [], 0
    wanted = Wanted(owner=str(os.getpid()), number=7, lease_ms=60_000, queues=("mail",))
    while True:
        leases = engine.run(engine.turn(settled, [wanted])).claimed[0].leases
        if not leases:
            break
        ran += len(leases)
        settled = [Settlement(lease.job, lease.token, Succeeded(b"1")) for lease in leases]
    say(ran)
    """
    workers = [others.start(script) for _ in range(2)]

    ran = [int(heard(one)) for one in workers]
    left = desk.claim(1_000).leases  # of the one that ended before the other had sent all
    queue = desk.queue()

    assert sum(ran) + len(left) == 600
    assert (queue.succeeded, queue.depth.ready) == (sum(ran), 0)


def test_a_ring_crosses_processes(desk: Desk, others: Others):
    bell = desk.engine.listen(["mail"])
    sender = others.start("engine.run(engine.append(jobs(1), Admission())); say('sent')")

    assert bell.heard(10)
    assert heard(sender) == "sent"
    bell.close()


def test_a_gate_held_for_long_is_busy_and_names_the_holder(path: Path, others: Others):
    gate_path = path.parent / "gate"
    holder = others.start(
        """
        from backlane.engine.sqlite.store.gate import Gate
        gate = Gate(path.parent / "gate")
        gate.acquire()
        say("holding")
        sys.stdin.readline()
        gate.release()
        say("released")
        time.sleep(60)
        """
    )
    assert heard(holder) == "holding"
    gate = Gate(gate_path)

    with pytest.raises(EngineBusy, match=str(holder.pid)):
        gate.acquire(0.1)
    holder.stdin.write("go\n")
    holder.stdin.flush()
    assert heard(holder) == "released"

    gate.acquire(5)
    gate.release()
    gate.close()


def test_a_gate_wakes_who_waits(path: Path):
    mine, theirs = Gate(path.parent / "gate"), Gate(path.parent / "gate")
    mine.acquire()
    order: list[str] = []

    def wait() -> None:
        theirs.acquire()
        order.append("theirs")
        theirs.release()

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not theirs._is_blocked:
        time.sleep(0.001)
    order.append("mine")
    mine.release()
    waiting.join(5)

    assert order == ["mine", "theirs"]


def test_a_foreign_transaction_is_waited_for(desk: Desk, engine: SqliteEngine, path: Path):
    engine.migrate()
    foreign = apsw.Connection(str(path))
    foreign.execute("begin immediate")
    ending = threading.Timer(0.05, lambda: foreign.execute("commit"))
    ending.start()

    desk.add()

    ending.join()
    assert desk.depth().ready == 1


def test_a_foreign_transaction_that_does_not_end_is_busy(
    desk: Desk, engine: SqliteEngine, path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine.migrate()
    monkeypatch.setattr("backlane.engine.sqlite.store.connection.WAIT_SECONDS", 0.05)
    foreign = apsw.Connection(str(path))
    foreign.execute("begin immediate")

    with pytest.raises(EngineBusy, match="commit or roll it back sooner"):
        desk.add()
    foreign.execute("rollback")

    desk.add()


def test_a_forked_child_opens_anew_and_harms_nothing(desk: Desk, engine: SqliteEngine, path: Path):
    desk.add()
    (lease,) = desk.claim(1).leases
    log = Path(f"{path}-wal")

    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine.run(engine.append([desk.job()], Admission()))
            seen = engine.run(engine.list_queues())[0].depth
            status = 0 if (seen.ready, seen.running) == (1, 1) else 2
            engine.close()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert log.exists()
    desk.settle(lease, SUCCEEDED)
    assert desk.state(lease.job) is State.SUCCEEDED
    assert desk.depth().ready == 1


def test_children_forked_during_transactions_work(desk: Desk, engine: SqliteEngine):
    engine.migrate()
    stop = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not stop.is_set():
            engine.run(engine.append([desk.job()], Admission()))
            sent += 1

    sender = threading.Thread(target=send)
    sender.start()
    statuses = []
    children = 10
    for number in range(children):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                job = desk.job(id=number.to_bytes(6) + b"\x7f" + bytes(8) + b"\x01")
                engine.run(engine.append([job], Admission()))
                status = 0
            finally:
                os._exit(status)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    sender.join()

    assert statuses == [0] * children
    assert desk.depth().ready == sent + children


def test_a_fork_does_not_keep_the_gate_of_a_dead_parent(others: Others, desk: Desk):
    """Users saw every process wait for a child that had nothing to do with jobs."""
    desk.engine.migrate()
    parent = others.start(
        """
        engine.run(engine.append(jobs(1), Admission()))
        engine._process.handles().store.gate.acquire()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        say(child)
        time.sleep(60)
        """
    )
    child = int(heard(parent))
    try:
        parent.kill()
        parent.wait()
        desk.add()
    finally:
        os.kill(child, signal.SIGKILL)

    assert desk.depth().ready == 2


def test_raw_receivers_are_never_departed(desk: Desk, engine: SqliteEngine):
    desk.add()
    engine.run(engine.claim(Wanted(owner="raw", number=1, lease_ms=1, queues=("mail",))))

    assert asyncio.run(engine.departed()) == ()


def test_settling_with_a_lease_of_a_dead_process_is_fenced(desk: Desk, others: Others):
    holder = others.start(HOLDER)
    assert heard(holder) == "holding"
    holder.kill()
    holder.wait()

    leases = desk.claim(departed=asyncio.run(desk.engine.departed())).leases
    stale = settlement(leases[0], SUCCEEDED)
    stale = type(stale)(stale.job, stale.token - 1, stale.outcome)

    assert desk.engine.run(desk.engine.settle([stale])).lost == [leases[0].job]
