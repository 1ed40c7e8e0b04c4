"""`backlane jobs`."""

from __future__ import annotations

import uuid

import pytest

from backlane.model.ids import new_id
from backlane.model.outcome import ErrorRecord, RetryAfter, Succeeded

UNKNOWN = str(uuid.UUID(bytes=new_id(1_900_000_000_000)))


def states(shown) -> dict[str, str]:
    return {job["id"]: job["state"] for job in shown("jobs", "list", "--limit", "1000")["jobs"]}


# -- list --


def test_jobs_are_listed_newest_first_with_full_ids(backlane, stage, url):
    first, second = stage.enqueued("mail", 2)

    lines = backlane("jobs", "list", "--url", url).stdout.splitlines()

    assert lines[0].split()[:4] == ["id", "queue", "task", "state"]
    assert [line.split()[0] for line in lines[1:]] == [second, first]


def test_an_empty_list_says_so(backlane, engine, url):
    result = backlane("jobs", "list", "--url", url)

    assert (result.exit_code, result.stdout) == (0, "no jobs\n")


def test_a_list_goes_on_where_it_ended(shown, stage):
    made = stage.enqueued("mail", 5)

    first = shown("jobs", "list", "--limit", "3")
    rest = shown("jobs", "list", "--after", first["next"])

    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == made[::-1]
    assert rest["next"] is None


def test_a_cursor_that_is_none_is_wrong_use(backlane, engine, url):
    result = backlane("jobs", "list", "--url", url, "--after", "rubbish")

    assert result.exit_code == 2


def test_options_select_what_is_listed(shown, stage):
    dead = stage.failed("no route to host")
    stage.failed("disk full")
    stage.enqueued("mail")

    by_state = shown("jobs", "list", "--state", "failed", "--state", "ready")
    by_text = shown("jobs", "list", "--text", "ROUTE")

    assert len(by_state["jobs"]) == 3
    assert [job["id"] for job in by_text["jobs"]] == [dead]


def test_an_unknown_queue_is_told_with_the_nearest_name(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("jobs", "list", "--url", url, "--queue", "mial")

    assert result.exit_code == 1
    assert "no queue 'mial'" in result.stderr
    assert "did you mean 'mail'?" in result.stderr


def test_a_state_that_does_not_exist_is_wrong_use(backlane, url):
    result = backlane("jobs", "list", "--url", url, "--state", "done")

    assert result.exit_code == 2
    assert "succeeded" in result.stderr


# -- show --


def test_a_job_is_shown_with_its_arguments_result_and_errors(backlane, stage, url):
    retried = stage.ended(RetryAfter(60_000, ErrorRecord("OSError", "no route", "Trace\nOSError")))

    text = backlane("jobs", "show", retried, "--url", url).stdout

    assert '{"to":"a@b"}' in text
    assert "1 of 3" in text
    assert "scheduled" in text
    assert ": OSError\n    Trace\n    OSError\n" in text


def test_json_has_the_result_as_data(shown, stage):
    done = stage.ended(Succeeded(b'{"sent":[1,2]}'))

    job = shown("jobs", "show", done)

    assert job["state"] == "succeeded"
    assert job["result"] == {"sent": [1, 2]}
    assert job["arguments"] == {"to": "a@b"}
    assert job["errors"] == []


@pytest.mark.parametrize(
    ("body", "field", "value"), [(b"hello", "text", "hello"), (b"\xff\x00", "base64", "/wA=")]
)
def test_a_message_is_shown_as_text_where_it_is_text(shown, stage, body, field, value):
    (made,) = stage.enqueued("mail", task=None, body=body)

    job = shown("jobs", "show", made)

    assert job[field] == value
    assert job["arguments"] is None


def test_arguments_that_are_damaged_are_shown_as_they_are(shown, stage):
    (made,) = stage.enqueued("mail", body=b'{"to": "a')

    assert shown("jobs", "show", made)["text"] == '{"to": "a'


@pytest.mark.parametrize("verb", ["show", "retry", "cancel", "delete"])
def test_an_unknown_job_is_told_in_one_line(backlane, engine, url, verb):
    result = backlane("jobs", verb, UNKNOWN, "--url", url)

    assert result.exit_code == 1
    assert f"no job {UNKNOWN}" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("bad", ["7", "not-an-id", "6fa459ea-ee8a-3ca4-894e-db77e160355e"])
def test_what_is_no_id_is_wrong_use(backlane, engine, url, bad):
    result = backlane("jobs", "show", bad, "--url", url)

    assert result.exit_code == 2
    assert "is not a job id" in result.stderr
    assert result.stderr.count("\n") == 1


# -- retry, cancel, delete --


def test_retry_makes_a_dead_job_ready_again(backlane, shown, stage, url):
    dead = stage.failed()

    result = backlane("jobs", "retry", dead, "--url", url)

    assert (result.exit_code, result.stdout) == (0, "1 job will run again\n")
    assert states(shown) == {dead: "ready"}


def test_cancel_ends_a_waiting_job_at_once_and_asks_a_running_one_to_stop(shown, stage):
    waiting, running = stage.enqueued("mail", 2)
    stage.claimed(running)

    answer = shown("jobs", "cancel", waiting, running)

    assert (answer["changed"], answer["asked_to_stop"]) == (1, 1)
    assert states(shown) == {waiting: "cancelled", running: "running"}


def test_delete_forgets_a_job(shown, stage):
    gone, kept = stage.enqueued("mail", 2)

    shown("jobs", "delete", gone)

    assert states(shown) == {kept: "ready"}


def test_a_job_that_cannot_be_changed_is_told_with_the_reason(backlane, stage, url):
    done = stage.ended(Succeeded())

    result = backlane("jobs", "cancel", done, "--url", url)

    assert result.exit_code == 1
    assert result.stdout.startswith("0 jobs cancelled, 1 left as they are\n")
    assert done in result.stdout


def test_an_unknown_id_among_known_ones_changes_nothing(backlane, shown, stage, url):
    (known,) = stage.enqueued("mail")

    result = backlane("jobs", "cancel", known, UNKNOWN, "--url", url)

    assert result.exit_code == 1
    assert states(shown) == {known: "ready"}


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_a_change_without_a_selection_is_refused(backlane, engine, url, verb):
    result = backlane("jobs", verb, "--url", url, "--yes")

    assert result.exit_code == 2
    assert "say which jobs" in result.stderr


def test_a_change_to_many_is_asked_about(backlane, shown, stage, url):
    stage.enqueued("mail", 3)

    refused = backlane("jobs", "cancel", "--queue", "mail", "--url", url, input="n\n")
    agreed = backlane("jobs", "cancel", "--queue", "mail", "--url", url, input="y\n")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.endswith("backlane: nothing was changed\n")
    assert (agreed.exit_code, agreed.stdout) == (0, "3 jobs cancelled\n")


def test_where_nobody_can_answer_the_question_names_the_option(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("jobs", "delete", "--queue", "mail", "--url", url, input="")

    assert result.exit_code == 2
    assert "add --yes" in result.stderr


def test_many_are_changed_in_bounded_batches(shown, stage):
    for _ in range(5):
        stage.enqueued("mail", 500)

    answer = shown("jobs", "cancel", "--queue", "mail", "--yes")

    assert answer["changed"] == 2_500
