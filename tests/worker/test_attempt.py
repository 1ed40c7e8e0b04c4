"""One lease -> one settlement, without any process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from backlane import Backlane, Context, QueueFull, Retry, Snooze
from backlane.errors import JobCancelled, WrongUse
from backlane.middleware import Call, Middleware, Next
from backlane.model.event import AttemptEnded, AttemptStarted, Event
from backlane.model.job import Lease, Policy
from backlane.model.outcome import (
    Cancelled,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Snoozed,
    Succeeded,
)
from backlane.worker.attempt import Attempts
from backlane.worker.verdict import PARKED_END_MS, TRACEBACK_CHARS, Stop, judge, overran, recorded


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def lease(app: Backlane, task: str, *args: object, **fields: object) -> Lease:
    body = app.tasks[task].codec.encode_arguments(args, {}) if task in app.tasks else b"{}"
    known = {"job": bytes(16), "token": 1, "attempt": 0, "queue": "default", "body": body}
    return Lease(task=task, **{**known, **fields})  # type: ignore[arg-type]


def outcome(app: Backlane, task: str, *args: object, **fields: object) -> Outcome:
    return Attempts(app).run_inline(lease(app, task, *args, **fields)).outcome


def raising(app: Backlane, error: Callable[[], BaseException], **options: object) -> str:
    @app.task(name="raising", **options)  # type: ignore[arg-type]
    def function() -> None:
        raise error()

    return function.name


def test_a_function_that_returns_succeeds_with_its_encoded_result(app: Backlane):
    @app.task(name="double")
    def double(number: int) -> int:
        return 2 * number

    assert outcome(app, "double", 21) == Succeeded(b"42")


def test_an_async_function_runs_inline_with_and_without_a_running_loop(app: Backlane):
    @app.task(name="double")
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def within() -> tuple[Outcome, Outcome]:
        attempts = Attempts(app)
        awaited = await attempts.arun_inline(lease(app, "double", 21))
        return awaited.outcome, attempts.run_inline(lease(app, "double", 21)).outcome

    assert outcome(app, "double", 21) == Succeeded(b"42")
    assert asyncio.run(within()) == (Succeeded(b"42"), Succeeded(b"42"))


def test_the_context_knows_its_job(app: Backlane):
    @app.task(name="asks")
    def asks(context: Context) -> list[str]:
        return [context.task, context.queue, str(context.attempt)]

    assert outcome(app, "asks", attempt=2) == Succeeded(b'["asks","default","3"]')


def test_middleware_wraps_the_function_and_may_change_its_result():
    async def doubled(call: Call, following: Next) -> object:
        value = await following(call)
        assert isinstance(value, int)
        return 2 * value

    app = Backlane("memory://", middleware=[Middleware(attempt=doubled)])

    @app.task(name="one")
    def one() -> int:
        return 1

    @app.task(name="aone")
    async def aone() -> int:
        return 1

    assert outcome(app, "one") == Succeeded(b"2")
    assert outcome(app, "aone") == Succeeded(b"2")


def test_an_error_is_retried_by_the_numbers_its_job_was_enqueued_with(app: Backlane):
    task = raising(app, lambda: OSError("down"))

    ended = outcome(app, task, attempt=3, policy=Policy(base_ms=1_000, cap_ms=2_000))

    assert isinstance(ended, RetryAfter)
    assert 0 <= ended.delay_ms <= 2_000
    assert (ended.error.kind, ended.error.message) == ("OSError", "down")


def test_an_error_outside_the_policy_fails_at_once(app: Backlane):
    task = raising(app, lambda: ValueError("no"), retry=Retry(on=(OSError,)))

    ended = outcome(app, task)

    assert isinstance(ended, Failed)
    assert ended.reason is Reason.ERROR


def test_a_wrong_use_is_not_tried_again(app: Backlane):
    ended = outcome(app, raising(app, lambda: WrongUse("waits for another job's result")))

    assert isinstance(ended, Failed)
    assert ended.reason is Reason.ERROR


def test_an_error_that_is_retried_is_logged_with_its_job(
    app: Backlane, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "backlane.worker")

    outcome(app, raising(app, lambda: OSError("no route")))

    assert "execution 1 of 10 failed" in caplog.text
    assert "OSError: no route" in caplog.text


def test_a_snooze_puts_the_job_off(app: Backlane):
    assert outcome(app, raising(app, lambda: Snooze(7))) == Snoozed(7_000)


def test_an_unhandled_full_queue_puts_the_job_off_as_long_as_it_says(app: Backlane):
    full = QueueFull("next", limit="jobs", depth=1, bound=1, retry_after=timedelta(seconds=3))

    assert outcome(app, raising(app, lambda: full)) == Snoozed(3_000)


def test_a_full_queue_that_knows_no_better_puts_jobs_off_for_about_five_seconds(app: Backlane):
    full = QueueFull("next", limit="jobs", depth=1, bound=1)
    task = raising(app, lambda: full)

    delays = {outcome(app, task).delay_ms for _ in range(20)}

    assert len(delays) > 10  # they met it together, and must not all come back together
    assert 2_500 <= min(delays) <= max(delays) <= 7_500


def test_a_full_queue_never_puts_a_job_off_for_no_time(app: Backlane):
    full = QueueFull("next", limit="jobs", depth=1, bound=1, retry_after=timedelta(0))

    assert outcome(app, raising(app, lambda: full)) == Snoozed(100)


def test_what_can_never_fit_fails_the_job_as_any_error_does(app: Backlane):
    """A job that sent more than its queue can hold was put off for ever, uncounted."""
    full = QueueFull("next", limit="bytes", depth=0, bound=1, can_fit=False)

    assert isinstance(outcome(app, raising(app, lambda: full)), RetryAfter)


def test_an_unknown_task_is_parked_longer_each_time_and_failed_after_an_hour(app: Backlane):
    first = outcome(app, "unknown")
    later = outcome(app, "unknown", parked_ms=60_000)
    last = outcome(app, "unknown", parked_ms=PARKED_END_MS)

    assert first == Snoozed(1_000, parked=True)
    assert later == Snoozed(30_000, parked=True)
    assert isinstance(last, Failed)
    assert last.reason is Reason.UNKNOWN_TASK


@pytest.mark.parametrize("body", [b"", b"{", b'{"number":"x"}', b"\xff\xfe", b'{"v":99}'])
def test_bytes_that_do_not_fit_fail_as_undecodable(app: Backlane, body: bytes):
    @app.task(name="double")
    def double(number: int) -> int:
        return 2 * number

    ended = outcome(app, "double", 1, body=body)

    assert isinstance(ended, Failed)
    assert ended.reason is Reason.UNDECODABLE


def test_a_result_that_cannot_be_encoded_fails_as_unstorable(app: Backlane):
    @app.task(name="odd")
    def odd() -> int:
        return object()  # type: ignore[return-value]  # the fault under test

    ended = outcome(app, "odd")

    assert isinstance(ended, Failed)
    assert ended.reason is Reason.UNSTORABLE


def test_a_cancelled_job_is_never_retried(app: Backlane):
    held = lease(app, "any")

    heard = judge(JobCancelled("stop"), held, Retry(), Stop.CANCELLED)
    stumbled = judge(OSError("closed"), held, Retry(), Stop.CANCELLED)

    assert heard == Cancelled()
    assert isinstance(stumbled, Cancelled)
    assert stumbled.error is not None
    assert stumbled.error.kind == "OSError"


def test_an_attempt_out_of_time_is_retried_unless_it_was_the_last(app: Backlane):
    first = lease(app, "any", policy=Policy(attempts=2, soft_ms=100))
    last = lease(app, "any", policy=Policy(attempts=2, soft_ms=100), attempt=1)
    never = lease(app, "any", policy=Policy(soft_ms=100, retries_timeout=False))

    assert isinstance(overran(first), RetryAfter)
    assert [
        ended.reason for ended in (overran(last), overran(never)) if isinstance(ended, Failed)
    ] == [
        Reason.TIMEOUT,
        Reason.TIMEOUT,
    ]


def test_an_error_of_its_own_after_the_soft_limit_is_judged_as_that_error(app: Backlane):
    held = lease(app, "any", policy=Policy(soft_ms=100))

    ended = judge(ValueError("bad"), held, Retry(), Stop.TIMEOUT)

    assert isinstance(ended, RetryAfter)
    assert ended.error.kind == "ValueError"


@pytest.mark.parametrize("stop", [Stop.LOST, Stop.LEAVING])
def test_what_stops_for_its_worker_is_given_back(app: Backlane, stop: Stop):
    assert judge(asyncio.CancelledError(), lease(app, "any"), Retry(), stop) == Released()


def test_a_traceback_is_bounded():
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x" * 100_000)

    record = error_of(lambda: deep(200))

    assert len(record.traceback) < TRACEBACK_CHARS + 100
    assert len(record.message) < 3_000
    assert record.message.endswith("xxx")


def test_errors_of_one_cause_have_one_fingerprint():
    def cause(text: str) -> None:
        raise ValueError(text)

    def other(text: str) -> None:
        raise ValueError(text)

    first, second = error_of(lambda: cause("a")), error_of(lambda: cause("b"))
    third = error_of(lambda: other("a"))

    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != third.fingerprint


def test_observers_hear_of_start_and_end(app: Backlane):
    events: list[Event] = []
    app.observe(events.append)
    task = raising(app, lambda: OSError("down"))

    outcome(app, task)

    started, ended = events
    assert isinstance(started, AttemptStarted)
    assert isinstance(ended, AttemptEnded)
    assert (started.task, started.attempt) == (task, 1)
    assert (ended.outcome, ended.error) == ("retryafter", "OSError: down")


def test_an_observer_that_raises_is_not_in_the_way(app: Backlane):
    @app.observe
    def broken(event: Event) -> None:
        raise RuntimeError("broken observer")

    @app.task(name="fine")
    def fine() -> int:
        return 1

    assert outcome(app, "fine") == Succeeded(b"1")


def error_of(function: Callable[[], object]):
    try:
        function()
    except ValueError as error:
        return recorded(error)
    raise AssertionError("it did not raise")
