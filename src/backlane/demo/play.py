"""The play: two workers index files, one of them is killed half-way, and it all adds up."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from backlane.demo import account
from backlane.demo.account import Account, Starts
from backlane.demo.application import MODULE, QUEUE, SOURCE, build
from backlane.demo.index import Index, Part, joined
from backlane.demo.workers import WorkerProcess
from backlane.errors import JobCancelled, JobFailed, QueueFull, ResultTimeout
from backlane.model.queue import QueueRecord
from backlane.workflow import chord
from backlane.workflow_handle import WorkflowHandle

LOOK_SECONDS = 0.1  # between looks at the queue: often enough to be live, and cheap
RATE_SECONDS = 2.0  # over which jobs per second are counted
STALL_SECONDS = 30.0  # nothing runs and nothing ends for so long: say so and end
BATCH = 1_000


class Moment(msgspec.Struct, frozen=True):
    """What the live line shows."""

    queued: int
    running: int
    done: int
    jobs: int
    rate: float
    killed: int


class Ending(msgspec.Struct, frozen=True):
    """What the play leaves."""

    account: Account
    index: Index


class Play:
    """One performance, in a directory of its own.

    Args:
        paths: the files, one job each.
        directory: empty; the store, the application and the logs go there.
        worker: the command that starts a worker of `TARGET`.
        show: is told of each moment.
        url: the store, where it is not to be a file of its own; a new queue is made there.
    """

    def __init__(
        self,
        paths: list[str],
        directory: Path,
        worker: Sequence[str],
        show: Callable[[Moment], None],
        url: str | None = None,
    ) -> None:
        self._paths, self._directory, self._show = paths, directory, show
        self._starts = directory / "starts.log"
        starts = str(self._starts)
        # Another performance may have left its counters there, or be under way.
        self._queue = QUEUE if url is None else f"{QUEUE}-{secrets.token_hex(4)}"
        # Of a store of the user's nothing else is taken: these workers know no other tasks.
        self._worker_command = [*worker, "--queues", self._queue]
        url = url or f"sqlite:///{quote(str(directory / 'demo.db'))}"
        source = SOURCE.format(url=url, queue=self._queue, starts=starts)
        (directory / f"{MODULE}.py").write_text(source)
        self._app = build(url, queue=self._queue, starts=starts)
        self._app.engine.migrate()
        self._workers: list[WorkerProcess] = []
        self._killed: list[int] = []
        self._ids: list[bytes] = []  # of files
        self._runs: list[WorkflowHandle[Part]] = []
        self._faults: list[str] = []
        self._finishes: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def run(self, top: int) -> Ending:
        """Play it to its end and settle the account; `top` entries a list of the index."""
        began = time.monotonic()
        try:
            for name in ("worker-1", "worker-2"):
                self._workers.append(self._started(name))
            self._enqueue(top)
            self._work()
        finally:
            for worker in self._workers:  # all at once, then each in turn
                worker.ask_to_stop()
            for worker in self._workers:
                worker.stop()
        return self._settle_account(began, top)

    # -- the acts --

    def _enqueue(self, top: int) -> None:
        """Enqueue one job a file, and behind each batch one that gathers what it learnt.

        Where the queue is full, wait: the workers make room.
        """
        index_file, gather_facts = self._app.tasks["index_file"], self._app.tasks["gather_facts"]
        rest = list(self._paths)
        while rest:
            files = [index_file.node(path) for path in rest[:BATCH]]
            try:
                run = chord(files, gather_facts.node(top=top), partial=True).enqueue()
            except QueueFull:
                self._look()
                continue
            self._runs.append(run)
            self._ids += [job.id for job in run.nodes() if job.id != run.id.bytes]
            del rest[:BATCH]

    def _work(self) -> None:
        """Watch until all is done; kill a worker half-way and start it again."""
        while not self._faults:
            done = self._look()
            if not self._killed and done * 2 >= len(self._ids):
                self._kill_one()
            elif done >= self._jobs:
                return

    @property
    def _jobs(self) -> int:
        """All jobs of the play: of files, and those that gather."""
        return len(self._ids) + len(self._runs)

    def _kill_one(self) -> None:
        victim = self._workers[0]
        victim.kill()
        self._killed.append(victim.group)
        self._workers[0] = self._started(victim.name)

    def _started(self, name: str) -> WorkerProcess:
        return WorkerProcess(self._worker_command, self._directory, name)

    def _look(self) -> int:
        """Show the moment, judge the workers, wait a little; return how many jobs are over."""
        moment = self._moment()
        self._show(moment)
        self._faults += [end for worker in self._workers if (end := worker.ended()) is not None]
        if not moment.running and self._has_stalled():
            self._faults.append(f"no job ran for {STALL_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
        return moment.done

    def _moment(self) -> Moment:
        found = self._app.engine.run(self._app.engine.list_queues())
        queue = next((each for each in found if each.name == self._queue), None)
        if queue is None:
            return Moment(0, 0, 0, self._jobs, 0.0, len(self._killed))
        return Moment(
            queued=queue.depth.jobs - queue.depth.running,
            running=queue.depth.running,
            done=_finished(queue),
            jobs=self._jobs,
            rate=self._rate(_finished(queue)),
            killed=len(self._killed),
        )

    def _rate(self, done: int) -> float:
        now = time.monotonic()
        if done != self._finishes[-1][1]:
            self._finishes.append((now, done))
        while len(self._finishes) > 2 and now - self._finishes[0][0] > RATE_SECONDS:
            self._finishes.popleft()
        (since, before) = self._finishes[0]
        return (done - before) / max(now - since, LOOK_SECONDS)

    def _has_stalled(self) -> bool:
        return time.monotonic() - self._finishes[-1][0] > STALL_SECONDS

    # -- the account --

    def _settle_account(self, began: float, top: int) -> Ending:
        engine, starts = self._app.engine, Starts(self._starts)
        done = sum(1 for _ in account.succeeded(engine, self._ids))
        index = joined(self._parts(), top)
        self._faults += account.faults(engine, self._ids, self._jobs, starts, self._killed)
        if index.files != done:
            self._faults.append(f"{done} files were indexed, and {index.files} gathered")
        figures = Account(
            files=len(self._paths),
            jobs=len(self._ids),
            done=done,
            lost=len(self._ids) - done,
            repeated=len(starts.repeated()),
            workers_killed=len(self._killed),
            seconds=time.monotonic() - began,
            faults=self._faults,
        )
        self._app.close()
        return Ending(figures, index)

    def _parts(self) -> Iterator[Part]:
        """Yield what was gathered, as far as it was."""
        for run in self._runs:
            with suppress(ResultTimeout, JobFailed, JobCancelled):
                yield run.result(timeout=0)


def _finished(queue: QueueRecord) -> int:
    return queue.succeeded + queue.failed + queue.cancelled + queue.expired
