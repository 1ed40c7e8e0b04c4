"""The rules of keys: for how long a job holds its key, and when it is free again."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    REACHABLE,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    firsts,
    retry,
    snooze,
)

from backlane.engine.selection import Cancel, Delete, Redrive
from backlane.model.job import (
    FINAL,
    Job,
    Key,
    KeyRule,
    Policy,
    Receipt,
    Refusal,
    State,
)
from backlane.model.outcome import Outcome

KEY = Key("send", "welcome:7")
STARTED, FINISHED, KEPT = (KeyRule(until) for until in ("started", "finished", "succeeded"))
HOUR = KeyRule(window_ms=3_600_000)
RULES = {"started": STARTED, "finished": FINISHED, "succeeded": KEPT, "window": HOUR}
CONFLICTS = ["existing", "raise", "replace", "debounce"]
UNSTARTED = {State.SCHEDULED, State.READY}  # of the states a new job can be brought into
HOLDING = {
    "started": UNSTARTED,
    "finished": {*UNSTARTED, State.RUNNING},
    "succeeded": {*UNSTARTED, State.RUNNING, State.FAILED},
    "window": set(REACHABLE),
}


def keyed(desk: Desk, rule: KeyRule = FINISHED, **fields: object) -> Job:
    return desk.job(key=KEY, rule=rule, **fields)


def is_free(desk: Desk) -> bool:
    """Whether nobody holds the key; asked so that nothing is stored either way."""
    probe = keyed(desk, KeyRule(conflict="raise"))
    answer = desk.append(probe)
    if isinstance(answer, Refusal):
        assert (answer.limit, answer.job) == ("key", probe.id)
        return False
    assert desk.amend(Delete(), probe.id).changed == [probe.id]
    return True


# -- every rule, every conflict, a holder in every state --


@pytest.mark.parametrize("state", REACHABLE)
@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize("until", RULES)
def test_a_newcomer_meets_the_rule_of_the_holder(
    desk: Desk, until: str, conflict: str, state: State
) -> None:
    holder = desk.in_state(state, key=KEY, rule=RULES[until], body=b"old")
    newcomer = keyed(desk, KeyRule(conflict=conflict), body=b"new")

    answer = desk.append(newcomer)

    if state not in HOLDING[until]:
        assert firsts(answer) == [(newcomer.id, None)]
        return
    assert not desk.is_known(newcomer.id)
    if conflict == "raise":
        assert isinstance(answer, Refusal)
        assert (answer.limit, answer.job, answer.first) == ("key", newcomer.id, holder)
        return
    replaces = conflict != "existing" and state in UNSTARTED
    assert isinstance(answer, list)
    assert [(it.first, it.replaced) for it in answer] == [(holder, replaces)]
    assert desk.record(holder).body == (b"new" if replaces else b"old")


def test_a_rule_is_kept_with_its_job(desk: Desk) -> None:
    rule = KeyRule("started", None, "debounce", 9_000)
    job = desk.add_one(key=KEY, rule=rule)
    windowed = desk.add_one(key=Key("send", "8"), rule=HOUR)

    assert desk.record(job).rule == rule
    assert desk.find(states=(State.READY,)).records[0].rule == HOUR
    assert desk.record(windowed).rule == HOUR


# -- until started --


@pytest.mark.parametrize("outcome", [retry(5), snooze(5), RELEASED, CRASHED])
def test_started_frees_the_key_at_the_first_lease_for_good(desk: Desk, outcome: Outcome) -> None:
    desk.append(keyed(desk, STARTED))
    lease = desk.lease()
    assert is_free(desk)

    desk.settle(lease, outcome)

    assert is_free(desk)


def test_started_frees_the_key_of_a_lease_that_lapses(desk: Desk) -> None:
    desk.append(keyed(desk, STARTED))
    desk.lose()
    desk.sweep()

    assert is_free(desk)


def test_the_next_job_may_wait_while_the_one_before_runs(desk: Desk) -> None:
    first = desk.add_one(key=KEY, rule=STARTED)
    lease = desk.lease()
    second = desk.add_one(key=KEY, rule=STARTED)
    third = keyed(desk, STARTED)
    assert firsts(desk.append(third)) == [(third.id, second)]

    desk.settle(lease, retry(0))  # the first comes back, and takes nothing from the second

    assert firsts(desk.append(third)) == [(third.id, second)]
    assert desk.states([first, second]) == [State.READY, State.READY]
    desk.settle(desk.lease(ids=(first,)), SUCCEEDED)
    assert not is_free(desk)


@pytest.mark.parametrize("until", ["started", "finished", "succeeded"])
def test_a_job_that_never_started_frees_its_key_when_it_ends(desk: Desk, until: str) -> None:
    for end in ("cancel", "expire", "delete"):
        job = desk.add_one(key=KEY, rule=KeyRule(until), expires_ms=1_000)
        match end:
            case "cancel":
                desk.amend(Cancel(), job)
            case "expire":
                desk.clock.advance(seconds=1)
                assert desk.sweep().expired == 1
            case "delete":
                desk.amend(Delete(), job)
        assert is_free(desk), end


# -- until finished --


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_finished_frees_the_key_at_each_end(desk: Desk, outcome: Outcome) -> None:
    desk.append(keyed(desk))
    lease = desk.lease()
    assert not is_free(desk)

    desk.settle(lease, outcome)

    assert is_free(desk)


@pytest.mark.parametrize("until", ["finished", "succeeded"])
@pytest.mark.parametrize("outcome", [retry(5), snooze(5), RELEASED, CRASHED])
def test_a_job_that_is_to_run_again_holds_its_key(desk: Desk, until: str, outcome: Outcome) -> None:
    desk.append(keyed(desk, KeyRule(until)))

    desk.settle(desk.lease(), outcome)

    assert not is_free(desk)


def test_a_job_that_lapsed_out_of_attempts_frees_its_key(desk: Desk) -> None:
    desk.append(keyed(desk, policy=Policy(attempts=1)))
    desk.lose()

    desk.sweep()

    assert is_free(desk)


# -- until succeeded --


def test_succeeded_is_kept_by_a_dead_letter_until_it_succeeds(desk: Desk) -> None:
    job = desk.finished(FAILED, key=KEY, rule=KEPT)
    assert not is_free(desk)

    assert desk.amend(Redrive(), job).changed == [job]
    assert not is_free(desk)
    desk.settle(desk.lease(), SUCCEEDED)

    assert is_free(desk)


@pytest.mark.parametrize("outcome", [SUCCEEDED, STOPPED])
def test_succeeded_is_freed_by_any_other_end(desk: Desk, outcome: Outcome) -> None:
    desk.finished(outcome, key=KEY, rule=KEPT)

    assert is_free(desk)


def test_a_lapse_out_of_attempts_keeps_succeeded(desk: Desk) -> None:
    desk.append(keyed(desk, KEPT, policy=Policy(attempts=1)))
    desk.lose()
    desk.sweep()

    assert not is_free(desk)


def test_a_dead_letter_frees_its_key_when_it_is_deleted(desk: Desk) -> None:
    job = desk.finished(FAILED, key=KEY, rule=KEPT)

    desk.amend(Delete(), job)

    assert is_free(desk)


def test_a_dead_letter_frees_its_key_when_it_is_pruned(desk: Desk) -> None:
    desk.finished(FAILED, key=KEY, rule=KEPT)
    desk.clock.advance(days=30)
    assert not is_free(desk)

    assert desk.sweep().pruned == 1

    assert is_free(desk)


def test_a_dead_letter_frees_its_key_when_it_is_redriven_and_cancelled(desk: Desk) -> None:
    job = desk.finished(FAILED, key=KEY, rule=KEPT)
    desk.amend(Redrive(), job)

    desk.amend(Cancel(), job)

    assert is_free(desk)


# -- windows --


@pytest.mark.parametrize("state", [State.READY, State.RUNNING, *sorted(FINAL)])
def test_a_window_runs_from_the_append_whatever_becomes_of_the_job(
    desk: Desk, state: State
) -> None:
    begun_ms = desk.clock.wall_ms()
    desk.in_state(state, key=KEY, rule=HOUR)
    desk.clock.advance(milliseconds=3_600_000 - 1 - (desk.clock.wall_ms() - begun_ms))
    assert not is_free(desk)

    desk.clock.advance(milliseconds=1)

    assert is_free(desk)


def test_a_window_is_measured_by_the_wall_clock(desk: Desk) -> None:
    desk.append(keyed(desk, HOUR))

    desk.clock.jump(minutes=59)
    assert not is_free(desk)
    desk.clock.jump(minutes=1)
    assert is_free(desk)


def test_a_window_outlives_a_job_that_is_pruned(desk: Desk) -> None:
    job = desk.finished(key=KEY, rule=HOUR)
    desk.clock.advance(minutes=59)
    assert desk.sweep(done_ms=0).pruned == 1
    newcomer = keyed(desk)

    assert firsts(desk.append(newcomer)) == [(newcomer.id, job)]
    desk.clock.advance(minutes=1)
    assert is_free(desk)


@pytest.mark.parametrize("state", [State.READY, State.SUCCEEDED])
def test_deleting_a_job_ends_its_window(desk: Desk, state: State) -> None:
    job = desk.in_state(state, key=KEY, rule=HOUR)

    desk.amend(Delete(), job)

    assert is_free(desk)


def test_a_window_that_is_over_is_taken_over(desk: Desk) -> None:
    """The job before may still wait or run: its end must not free what is another's."""
    old = desk.add_one(key=KEY, rule=HOUR)
    desk.clock.advance(hours=1)
    new = desk.add_one(key=KEY)

    desk.settle(desk.lease(ids=(old,)), SUCCEEDED)
    desk.amend(Delete(), old)

    newcomer = keyed(desk)
    assert firsts(desk.append(newcomer)) == [(newcomer.id, new)]


def test_windows_that_are_over_are_swept(desk: Desk) -> None:
    for number in range(5):
        desk.finished(key=Key("send", str(number)), rule=HOUR)
    desk.clock.advance(hours=2)

    first = desk.sweep(4, done_ms=0)
    rest = desk.sweep(100, done_ms=0)

    assert (first.pruned, first.more) == (4, True)
    assert (rest.pruned, rest.more) == (1, False)
    assert desk.sweep(done_ms=0).pruned == 0


# -- redrive --


@pytest.mark.parametrize("until", RULES)
def test_a_job_is_not_redriven_onto_a_key_that_another_holds(desk: Desk, until: str) -> None:
    job = desk.add_one(key=KEY, rule=RULES[until])
    desk.amend(Cancel(), job)
    if until == "window":
        assert desk.amend(Redrive(), job).changed == [job]  # it holds it itself
        return
    holder = desk.add_one(key=KEY)

    answer = desk.amend(Redrive(), job)

    assert answer.changed == []
    assert [(it.job, it.why) for it in answer.skipped] == [
        (job, f"its key is held by job {holder.hex()}")
    ]
    assert desk.state(job) is State.CANCELLED


@pytest.mark.parametrize("until", RULES)
def test_a_redriven_job_holds_its_key_again(desk: Desk, until: str) -> None:
    job = desk.add_one(key=KEY, rule=RULES[until])
    desk.amend(Cancel(), job)

    assert desk.amend(Redrive(), job).changed == [job]

    assert not is_free(desk)


def test_a_job_that_was_leased_is_redriven_without_its_key_by_started(desk: Desk) -> None:
    job = desk.finished(FAILED, key=KEY, rule=STARTED)
    holder = desk.add_one(key=KEY, rule=STARTED)

    assert desk.amend(Redrive(), job).changed == [job]

    newcomer = keyed(desk)
    assert firsts(desk.append(newcomer)) == [(newcomer.id, holder)]
    desk.amend(Delete(), holder)
    assert is_free(desk)


def test_a_job_is_redriven_after_its_window_without_its_key(desk: Desk) -> None:
    job = desk.finished(FAILED, key=KEY, rule=HOUR)
    desk.clock.advance(hours=1)
    holder = desk.add_one(key=KEY)

    assert desk.amend(Redrive(), job).changed == [job]

    newcomer = keyed(desk)
    assert firsts(desk.append(newcomer)) == [(newcomer.id, holder)]


def test_a_receipt_of_a_new_job_replaces_nothing(desk: Desk) -> None:
    answer = desk.append(keyed(desk, KeyRule(conflict="replace")))

    assert isinstance(answer, list)
    assert [type(it) for it in answer] == [Receipt]
    assert (answer[0].is_new, answer[0].replaced) == (True, False)
