"""find: job records by what people know of them, in bounded pages."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, REACHABLE, Desk, retry

from backlane.engine.selection import Cancel, Redrive
from backlane.model.job import JobRecord, Key, State
from backlane.model.outcome import ErrorRecord, Failed, Reason, Settlement, Succeeded


def failing(message: str) -> Failed:
    return Failed(Reason.ERROR, ErrorRecord("builtins.OSError", message))


def test_nothing_given_selects_all_newest_first(desk: Desk) -> None:
    jobs = desk.add(3) + desk.add(2, "video")

    assert desk.found_ids() == jobs[::-1]


@pytest.mark.parametrize("state", REACHABLE)
def test_jobs_are_found_by_state(desk: Desk, state: State) -> None:
    jobs = {each: desk.in_state(each) for each in REACHABLE}
    if state is State.READY:  # a lapse may have come in between
        jobs = {state: desk.add_one("video")}
        assert desk.found_ids(states=(state,), queue="video") == [jobs[state]]
        return

    assert desk.found_ids(states=(state,)) == [jobs[state]]


def test_several_states_are_any_of_them(desk: Desk) -> None:
    failed, cancelled = desk.in_state(State.FAILED), desk.in_state(State.CANCELLED)
    desk.in_state(State.SUCCEEDED)

    assert desk.found_ids(states=(State.FAILED, State.CANCELLED)) == [cancelled, failed]


def test_dead_letters_are_found_by_reason(desk: Desk) -> None:
    desk.finished(FAILED)
    timeout = desk.finished(Failed(Reason.TIMEOUT, ErrorRecord("Timeout", "30 s")))

    assert desk.found_ids(reasons=(Reason.TIMEOUT,)) == [timeout]
    assert len(desk.found_ids(reasons=(Reason.TIMEOUT, Reason.ERROR))) == 2


def test_jobs_are_found_by_queue_task_key_and_group(desk: Desk) -> None:
    plain = desk.add_one()
    video = desk.add_one("video")
    resize = desk.add_one(task="resize")
    keyed = desk.add_one(key=Key("send", "welcome:7"))
    grouped = desk.add_one(group="acme")

    assert desk.found_ids(queue="video") == [video]
    assert desk.found_ids(task="resize") == [resize]
    assert desk.found_ids(key="welcome:7") == [keyed]
    assert desk.found_ids(group="acme") == [grouped]
    assert plain in desk.found_ids(queue="mail")


def test_all_given_fields_must_hold(desk: Desk) -> None:
    job = desk.add_one("video", task="resize", group="acme")
    desk.add_one("video", task="resize")
    desk.add_one("mail", task="resize", group="acme")

    assert desk.found_ids(queue="video", task="resize", group="acme") == [job]
    assert desk.found_ids(queue="video", group="other") == []


@pytest.mark.parametrize("text", ["no route", "NO ROUTE", "route to h"])
def test_jobs_are_found_by_words_of_their_errors_in_any_case(desk: Desk, text: str) -> None:
    job = desk.finished(failing("No route to host"))
    desk.finished(failing("disk full"))

    assert desk.found_ids(text=text) == [job]


@pytest.mark.parametrize("text", ["100%", "a_b", "\\", "'"])
def test_a_sought_text_has_no_wildcards(desk: Desk, text: str) -> None:
    desk.finished(failing("1000 and aXb"))
    job = desk.finished(failing(f"it says {text} here"))

    assert desk.found_ids(text=text) == [job]


def test_any_kept_error_of_a_job_may_hold_the_text(desk: Desk) -> None:
    job = desk.add_one()
    desk.settle(desk.lease(), retry(0, "no route"))
    desk.settle(desk.lease(), failing("disk full"))

    assert desk.found_ids(text="no route") == [job]


def test_a_keys_name_is_found_after_its_job_ended(desk: Desk) -> None:
    job = desk.finished(key=Key("send", "7"))

    assert desk.found_ids(key="7") == [job]
    assert desk.record(job).key == Key("send", "7")


# -- what a record carries --


def test_a_record_found_by_id_is_whole(desk: Desk) -> None:
    job = desk.finished(Succeeded(b"42"), body=b"[7]", headers=b"h")

    record = desk.record(job)

    assert (record.body, record.headers, record.result) == (b"[7]", b"h", b"42")


def test_a_record_of_a_list_leaves_the_large_parts_out(desk: Desk) -> None:
    desk.finished(FAILED, body=b"[7]")
    desk.finished(Succeeded(b"42"), body=b"[7]")

    for record in desk.find(queue="mail").records:
        assert (record.body, record.result, record.errors) == (b"", None, ())
        assert record.size == 3


def test_a_listed_record_says_the_same_as_a_whole_one(desk: Desk) -> None:
    for state in REACHABLE:
        job = desk.in_state(state, queue=state.value, key=Key("send", state), group="acme")
        (listed,) = desk.find(queue=state.value).records

        assert small(desk.record(job)) == small(listed)


def small(record: JobRecord) -> tuple[object, ...]:
    large = {"body", "headers", "result", "errors"}
    return tuple(getattr(record, name) for name in record.__struct_fields__ if name not in large)


def test_every_change_of_a_job_raises_its_revision(desk: Desk) -> None:
    job = desk.add_one()
    revisions = [desk.record(job).revision]

    for outcome in (retry(0), retry(0), FAILED):
        lease = desk.lease()
        revisions.append(desk.record(job).revision)
        desk.settle(lease, outcome)
        revisions.append(desk.record(job).revision)

    assert revisions == list(range(revisions[0], revisions[0] + 7))


# -- pages --


def test_pages_follow_each_other_without_gap_or_repeat(desk: Desk) -> None:
    jobs = desk.add(25)

    seen: list[bytes] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        page = desk.find(limit=10, cursor=cursor)
        assert len(page.records) <= 10
        seen += [record.id for record in page.records]
        cursor, pages = page.cursor, pages + 1

    assert seen == jobs[::-1]


def test_jobs_added_while_paging_do_not_shift_the_pages(desk: Desk) -> None:
    jobs = desk.add(20)
    first = desk.find(limit=10)
    desk.add(5)

    second = desk.find(limit=10, cursor=first.cursor)

    assert [record.id for record in first.records + second.records] == jobs[::-1]


def test_a_filtered_search_finds_what_is_far_back(desk: Desk) -> None:
    rare = desk.add_one(task="rare")
    desk.add(12_000)

    assert desk.found_ids(task="rare") == [rare]


def test_unknown_ids_are_simply_not_found(desk: Desk) -> None:
    job = desk.add_one()
    page = desk.find(ids=(desk.job().id, job))

    assert [record.id for record in page.records] == [job]


def test_many_ids_are_read_at_once(desk: Desk) -> None:
    jobs = desk.add(1_000)

    page = desk.find(limit=1_000, ids=tuple(jobs))

    assert {record.id for record in page.records} == set(jobs)


def test_an_empty_store_has_one_empty_page(desk: Desk) -> None:
    page = desk.find()

    assert (page.records, page.cursor) == ([], None)


def test_a_finished_job_tells_how_long_its_last_attempt_ran(desk: Desk) -> None:
    waiting, job = desk.add_one(priority=1), desk.add_one(priority=9)
    for outcome, ran_ms in ((retry(), 30), (Succeeded(), 40)):
        lease = desk.lease()
        desk.run(desk.engine.settle([Settlement(lease.job, lease.token, outcome, ran_ms)]))
    unrun = desk.in_state(State.CANCELLED)

    assert [desk.record(each).ran_ms for each in (waiting, job, unrun)] == [None, 40, 0]


def test_a_failed_job_that_is_run_again_and_cancelled_did_not_run(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.run(desk.engine.settle([Settlement(lease.job, lease.token, failing("no route"), 30)]))

    failed = desk.record(job).ran_ms
    desk.amend(Redrive(), job)
    desk.amend(Cancel(), job)

    assert (failed, desk.record(job).ran_ms) == (30, 0)
