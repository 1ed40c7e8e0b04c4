"""tune: what the code declares of a queue, and what a person sets over it."""

from __future__ import annotations

from tests.engine.contract.desk import Desk

from backlane.engine.protocol import Declare, Tune
from backlane.model.job import Refusal
from backlane.model.queue import Bounds, Depth, Kind


def tune(desk: Desk, change: Declare | Tune, queue: str = "mail"):
    return desk.run(desk.engine.tune(queue, change))


def test_a_declaration_makes_the_queue(desk: Desk) -> None:
    before = tune(desk, Declare(Kind.MESSAGES, Bounds(max_jobs=7)))

    queue = desk.queue()
    assert before is None
    assert (queue.kind, queue.bounds, queue.declared) == (
        Kind.MESSAGES,
        Bounds(max_jobs=7),
        Bounds(max_jobs=7),
    )
    assert (queue.paused, queue.depth) == (False, Depth())


def test_a_declaration_answers_what_was_in_force_before(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=7)))

    before = tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=9)))

    assert before is not None
    assert before.declared == Bounds(max_jobs=7)
    assert desk.queue().declared == Bounds(max_jobs=9)


def test_a_declared_bound_holds_for_those_who_declare_none(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=1)))
    desk.add()

    assert desk.append(desk.job()) == Refusal("mail", "jobs", depth=1, bound=1, added=1, jobs=1)


def test_a_declaration_of_another_kind_changes_nothing(desk: Desk) -> None:
    tune(desk, Declare(Kind.MESSAGES, Bounds(max_jobs=7)))

    before = tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=9)))

    assert before is not None
    assert before.kind is Kind.MESSAGES
    assert (desk.queue().kind, desk.queue().declared) == (Kind.MESSAGES, Bounds(max_jobs=7))


def test_tuning_an_unknown_queue_answers_nothing_and_makes_nothing(desk: Desk) -> None:
    assert tune(desk, Tune(max_jobs=5)) is None
    assert desk.run(desk.engine.list_queues()) == []


def test_what_is_tuned_goes_before_what_is_declared(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=7, max_bytes=700)))

    after = tune(desk, Tune(max_jobs=3))

    assert after == desk.queue()
    assert after.bounds == Bounds(max_jobs=3, max_bytes=700)
    assert (after.tuned_max_jobs, after.tuned_max_bytes) == (3, None)
    assert after.declared == Bounds(max_jobs=7, max_bytes=700)


def test_what_is_tuned_survives_a_new_declaration(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=7)))
    tune(desk, Tune(max_jobs=3))

    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=50)))

    assert desk.queue().bounds.max_jobs == 3


def test_tuning_one_setting_leaves_the_others(desk: Desk) -> None:
    desk.add()
    tune(desk, Tune(max_jobs=3))
    tune(desk, Tune(max_bytes=300))
    tune(desk, Tune(paused=True))

    queue = desk.queue()
    assert (queue.tuned_max_jobs, queue.tuned_max_bytes, queue.paused) == (3, 300, True)


def test_a_reset_forgets_what_was_tuned_and_not_the_pause(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_jobs=7, max_bytes=700)))
    tune(desk, Tune(max_jobs=3, max_bytes=300, paused=True))

    after = tune(desk, Tune(reset=True))

    assert after.bounds == Bounds(max_jobs=7, max_bytes=700)
    assert (after.tuned_max_jobs, after.tuned_max_bytes, after.paused) == (None, None, True)


def test_a_reset_may_set_anew(desk: Desk) -> None:
    desk.add()
    tune(desk, Tune(max_jobs=3, max_bytes=300))

    after = tune(desk, Tune(reset=True, max_jobs=4))

    assert (after.tuned_max_jobs, after.tuned_max_bytes) == (4, None)


def test_a_pause_is_lifted_by_name_only(desk: Desk) -> None:
    desk.add()
    tune(desk, Tune(paused=True))
    tune(desk, Declare(Kind.TASKS, Bounds()))
    tune(desk, Tune(max_jobs=3))

    assert desk.queue().paused
    assert tune(desk, Tune(paused=False)).paused is False


def test_a_bound_below_the_depth_drops_nothing(desk: Desk) -> None:
    desk.add(5)

    tune(desk, Tune(max_jobs=1))

    assert desk.depth().jobs == 5
    assert isinstance(desk.append(desk.job()), Refusal)
    assert len(desk.claimed_ids()) == 5


def test_a_paused_queue_still_takes_jobs(desk: Desk) -> None:
    desk.add()
    tune(desk, Tune(paused=True))

    desk.add(3)

    assert desk.depth().ready == 4


def test_the_wait_and_the_share_of_a_group_are_declared_and_tuned_as_well(desk: Desk) -> None:
    declared = Bounds(7, 700, max_wait_ms=5_000, group_share=0.5)
    tune(desk, Declare(Kind.TASKS, Bounds()))
    tune(desk, Declare(Kind.TASKS, declared))
    assert (desk.queue().declared, desk.queue().bounds) == (declared, declared)

    after = tune(desk, Tune(max_wait_ms=2_000, group_share=0.25))

    assert after == desk.queue()
    assert after.bounds == Bounds(7, 700, 2_000, 0.25)
    assert (after.tuned_max_wait_ms, after.tuned_group_share) == (2_000, 0.25)
    assert after.declared == declared


def test_a_new_queue_has_all_that_was_declared_of_it(desk: Desk) -> None:
    declared = Bounds(7, 700, max_wait_ms=5_000, group_share=0.5)

    tune(desk, Declare(Kind.TASKS, declared))

    assert desk.queue().declared == declared


def test_a_declaration_takes_back_the_one_before(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_wait_ms=5_000, group_share=0.5)))

    tune(desk, Declare(Kind.TASKS, Bounds()))

    assert desk.queue().bounds == Bounds()


def test_a_wait_tuned_to_nothing_is_not_bounded_whatever_the_code_says(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_wait_ms=5_000)))

    after = tune(desk, Tune(max_wait_ms=0))

    assert after is not None
    assert (after.tuned_max_wait_ms, after.bounds.max_wait_ms) == (0, None)
    assert tune(desk, Tune(max_jobs=3)).tuned_max_wait_ms == 0


def test_a_reset_forgets_the_tuned_wait_and_share(desk: Desk) -> None:
    tune(desk, Declare(Kind.TASKS, Bounds(max_wait_ms=5_000)))
    tune(desk, Tune(max_wait_ms=0, group_share=0.25))

    after = tune(desk, Tune(reset=True))

    assert after is not None
    assert after.bounds == Bounds(max_wait_ms=5_000)
    assert (after.tuned_max_wait_ms, after.tuned_group_share) == (None, None)
