"""Bad bytes in the store, and functions that end badly: met by a worker, not by a caller.

Each case ends as a dead letter whose reason and bytes can be read, and whose handle says
what to do; the worker goes on with the next job.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.bad_input.book import Bad, World
from tests.bad_input.calls import Hostile

from backlane import Backlane, JobFailed, JobHandle, Reason, Retry
from backlane.engine.protocol import Admission, Wanted
from backlane.model.ids import new_id
from backlane.model.job import Job, Lease, Policy, Receipt
from backlane.worker.attempt import Attempts

Call = Callable[[World], object]

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "white space": b"  ",
    "null": b"null",
    "a number": b"7",
    "a text": b'"x"',
    "a list": b"[1]",
    "no arguments": b"{}",
    "another parameter": b'{"y":1}',
    "one parameter more": b'{"x":1,"y":1}',
    "a text for a number": b'{"x":"1"}',
    "a fraction for a number": b'{"x":1.5}',
    "null for a number": b'{"x":null}',
    "true for a number": b'{"x":true}',
    "a list for a number": b'{"x":[1]}',
    "cut off": b'{"x":1',
    "cut off in a text": b'{"x":"a',
    "cut off in an escape": b'{"x":"\\u12',
    "something behind": b'{"x":1}{"x":2}',
    "a comma too many": b'{"x":1,}',
    "single quotes": b"{'x':1}",
    "NaN": b'{"x":NaN}',
    "infinity": b'{"x":Infinity}',
    "no Unicode": b'{"x":"\xff"}',
    "half a surrogate": b'{"x":"\\ud800"}',
    "UTF-16": '{"x":1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"x":1}',
    "zero bytes": b"\x00" * 32,
    "ten thousand digits": b'{"x":' + b"9" * 10_000 + b"}",
    "a huge exponent": b'{"x":1e999}',
    "endless depth": b'{"x":' + b"[" * 50_000,
    "endless depth of objects": b'{"x":' * 50_000,
    "a pickle": b"\x80\x04\x95\x0f" + b"\x00" * 7 + b"\x8c\x02os\x94\x8c\x06system\x94\x93.",
    "a pickle of protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "MessagePack": b"\x81\xa1x\x01",
    "YAML": b"x: 1\n",
    "XML": b"<x>1</x>",
    "an envelope": b'{"v":9,"task":"good","arguments":{"x":1}}',
    "args and kwargs": b'{"args":[1],"kwargs":{}}',
    "Celery's own": b'[[1],{},{"callbacks":null}]',
}


def undecodable() -> Iterator[Bad]:
    for what, body in BODIES.items():
        yield Bad(f"a stored body of {what}", _stored(body), JobFailed)


def _stored(body: bytes) -> Call:
    def call(world: World) -> object:
        job = put(world, body)
        work(world.app)
        record = job.record()
        assert (record.reason, record.body) == (Reason.UNDECODABLE, body)
        return job.result(timeout=0)

    return call


def put(world: World, body: bytes, task: str = "good", **parts: Any) -> JobHandle[Any]:
    """Store a job whose bytes no enqueue would have written."""
    policy = Policy(attempts=1)
    job = Job(id=new_id(0), queue="default", task=task, body=body, policy=policy, **parts)
    engine = world.app.engine
    receipts = engine.run(engine.append([job], Admission()))
    assert isinstance(receipts, list), receipts
    assert isinstance(receipts[0], Receipt)
    assert receipts[0].is_new
    return world.app.job(uuid.UUID(bytes=job.id))


def work(app: Backlane) -> list[Lease]:
    """Run what is due with the worker's own code, and return what was run."""
    engine, attempts, ran = app.engine, Attempts(app), list[Lease]()
    wanted = Wanted(owner="worker", number=100, lease_ms=30_000, queues=("default",), lane=None)
    while leases := engine.run(engine.claim(wanted)).leases:
        engine.run(engine.settle([attempts.run_inline(lease) for lease in leases]))
        ran += leases
    return ran


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Wordy(Exception):
    def __str__(self) -> str:
        return "word\n" * 1_000_000


class Lying(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307 - that is the lie


class Tangled(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no trace")


def _raising(error: Callable[[], BaseException]) -> Callable[[], object]:
    def function() -> object:
        raise error()

    return function


def _caused() -> BaseException:
    error = ValueError("first")
    error.__cause__ = error
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "an error without words": lambda: Mute(),
    "an error of a million words": lambda: Wordy(),
    "an error whose text is no text": lambda: Lying(),
    "an error without a trace": lambda: Tangled(),
    "an error that is its own cause": _caused,
    "an error with a lone surrogate": lambda: ValueError("\ud800"),
    "an error with a zero byte": lambda: ValueError("a\x00b"),
    "an error of bytes": lambda: ValueError(b"\xff"),
    "an error that cannot be pickled": lambda: ValueError(lambda: 1),
    "an error group": lambda: ExceptionGroup("many", [Mute(), ValueError("x")]),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "GeneratorExit": lambda: GeneratorExit(),
    "StopIteration": lambda: StopIteration(3),
    "an error of no class of ours": lambda: BaseException("base"),
    "too deep a recursion": lambda: RecursionError("deep"),
    "no memory": lambda: MemoryError(),
}


def raised() -> Iterator[Bad]:
    for what, error in ERRORS.items():
        yield Bad(f"a function that raises {what}", _running(_raising(error)), JobFailed)


RESULTS: dict[str, Callable[[], object]] = {
    "an object": lambda: object(),
    "a function": lambda: print,
    "a generator": lambda: (i for i in range(3)),
    "a tuple without annotation": lambda: (1, 2),
    "a set without annotation": lambda: {1},
    "NaN": lambda: float("nan"),
    "a lone surrogate": lambda: "\ud800",
    "number keys": lambda: {1: 2},
    "a coroutine": lambda: _coroutine(),
    "2 MiB": lambda: "x" * (2 * 1024 * 1024),
    "a cycle": lambda: _cycle(),
    "endless depth": lambda: _deep(),
    "a hostile object": lambda: Hostile(),
}


def _coroutine() -> object:
    async def never() -> None: ...

    coroutine = never()
    coroutine.close()
    return coroutine


def _cycle() -> object:
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    return cycle


def _deep() -> object:
    value: Any = None
    for _ in range(50_000):
        value = [value]
    return value


def unstorable() -> Iterator[Bad]:
    for what, function in RESULTS.items():
        yield Bad(f"a result of {what}", _running(function, Reason.UNSTORABLE), JobFailed)
    annotated = _annotated(lambda: "text", int)
    yield Bad("a result of another type", _running(annotated, Reason.UNSTORABLE), JobFailed)


def _annotated(function: Callable[[], object], hint: Any) -> Callable[[], object]:
    function.__annotations__["return"] = hint
    return function


def _running(function: Callable[[], object], reason: Reason | None = None) -> Call:
    def call(world: World) -> object:
        job = _declared(world, function).enqueue()
        work(world.app)
        record = job.record()
        assert reason is None or record.reason is reason
        assert len(record.errors[-1].error.message) < 3_000
        return job.result(timeout=0)

    return call


def _declared(world: World, function: Callable[[], object]) -> Any:
    def task() -> Any:
        return function()

    task.__annotations__ = dict(function.__annotations__)
    never = Retry(attempts=1)
    return world.app.task(name="task", retry=never)(task)


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    yield from undecodable()
    yield from raised()
    yield from unstorable()
