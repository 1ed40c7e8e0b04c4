"""The checker finds what it looks for: a campaign that passes means something."""

from __future__ import annotations

from pathlib import Path

from tests.faults.history import Attempt, Calls, Kill, judge, read_diary

A, B = 100, 200  # pids
MS = 1_000_000


def attempt(pid: int, began: int, last_sign: int, *, has_ended: bool = True) -> Attempt:
    return Attempt("job", pid, began * MS, last_sign * MS, has_ended)


def kill(pid: int, at: int) -> Kill:
    return Kill(at * MS, pid, frozenset({pid}))


CALLS = Calls(acknowledged={"job": 20 * MS})


def test_a_job_that_ran_once_and_is_settled_is_fine() -> None:
    verdict = judge(CALLS, {"job"}, {"job": [attempt(A, 0, 50)]}, [])

    assert verdict.is_valid
    assert (verdict.repeated, verdict.hits) == (0, 0)


def test_an_acknowledged_job_that_never_ran_is_lost() -> None:
    verdict = judge(CALLS, {"job"}, {}, [])

    assert verdict.lost == ["job: never ran"]


def test_a_job_that_ran_but_is_not_settled_is_lost() -> None:
    verdict = judge(CALLS, set(), {"job": [attempt(A, 0, 50)]}, [])

    assert len(verdict.lost) == 1


def test_a_refused_job_that_ran_is_found() -> None:
    calls = Calls(refused={"job"})

    verdict = judge(calls, set(), {"job": [attempt(A, 0, 50)]}, [])

    assert verdict.lost == ["job: refused, but it ran"]


def test_a_killed_attempt_explains_the_next_and_times_the_recovery() -> None:
    attempts = [attempt(A, 0, 30, has_ended=False), attempt(B, 250, 300)]

    verdict = judge(CALLS, {"job"}, {"job": attempts}, [kill(A, 32)])

    assert verdict.is_valid
    assert (verdict.hits, verdict.repeated) == (1, 1)
    assert verdict.recoveries == [0.218]


def test_two_attempts_alive_at_once_are_an_overlap() -> None:
    attempts = [attempt(A, 0, 60), attempt(B, 50, 90)]

    verdict = judge(CALLS, {"job"}, {"job": attempts}, [kill(A, 40)])

    assert len(verdict.overlaps) == 1


def test_a_second_run_without_a_kill_is_unexplained() -> None:
    attempts = [attempt(A, 0, 30), attempt(B, 50, 90)]

    verdict = judge(CALLS, {"job"}, {"job": attempts}, [kill(B, 95)])

    assert len(verdict.unexplained) == 1


def test_the_diary_of_many_processes_is_read_by_job(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.write_text(
        "start j 1 10 10\nstart k 2 11 11\nalive j 1 10 15\nstart j 3 30 30\nend k 2 11 20\n"
    )

    found = read_diary(diary)

    assert [(it.pid, it.last_sign, it.has_ended) for it in found["j"]] == [
        (1, 15, False),
        (3, 30, False),
    ]
    assert [(it.pid, it.last_sign, it.has_ended) for it in found["k"]] == [(2, 20, True)]


def test_what_a_store_says_it_may_forget_is_neither_lost_nor_repeated() -> None:
    attempts = [attempt(A, 30, 40), attempt(B, 80, 90)]

    assert judge(CALLS, set(), {}, [], forgotten=[(10 * MS, 30 * MS)]).is_valid
    assert judge(CALLS, {"job"}, {"job": attempts}, [], forgotten=[(35 * MS, 60 * MS)]).is_valid
    assert not judge(CALLS, set(), {}, [], forgotten=[(21 * MS, 30 * MS)]).is_valid
    assert not judge(CALLS, {"job"}, {"job": attempts}, [], [(41 * MS, 60 * MS)]).is_valid
