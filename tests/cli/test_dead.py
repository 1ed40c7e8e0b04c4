"""`backlane dead`."""

from __future__ import annotations

from backlane.model.outcome import Succeeded


def test_dead_letters_are_listed_with_reason_and_last_error(backlane, stage, url):
    stage.ended(Succeeded())
    dead = stage.failed("no route")

    lines = backlane("dead", "list", "--url", url).stdout.splitlines()

    assert len(lines) == 2
    assert lines[1].startswith(dead)
    assert "error" in lines[1]
    assert lines[1].endswith("OSError: no route")


def test_json_has_the_job_and_its_last_error(shown, stage):
    dead = stage.failed("no route")

    (answer,) = shown("dead", "list", "--reason", "error")

    assert answer["job"]["id"] == dead
    assert answer["error"]["message"] == "no route"


def test_no_dead_letters_is_said(backlane, engine, url):
    assert backlane("dead", "list", "--url", url).stdout == "no dead letters\n"


def test_redrive_runs_those_again_that_match(backlane, shown, stage, url):
    matching = stage.failed("no route")
    other = stage.failed("disk full")

    result = backlane("dead", "redrive", "--text", "route", "--yes", "--url", url)

    assert result.stdout == "1 job will run again\n"
    states = {job["id"]: job["state"] for job in shown("jobs", "list")["jobs"]}
    assert states == {matching: "ready", other: "failed"}


def test_redrive_of_all_must_be_said_and_is_asked_about(backlane, stage, url):
    stage.failed()
    stage.failed()

    unsaid = backlane("dead", "redrive", "--url", url)
    asked = backlane("dead", "redrive", "--all", "--url", url, input="n\n")
    done = backlane("dead", "redrive", "--all", "--yes", "--url", url)

    assert (unsaid.exit_code, asked.exit_code) == (2, 1)
    assert done.stdout == "2 jobs will run again\n"


def test_redrive_by_id_needs_no_question(backlane, stage, url):
    dead = stage.failed()

    assert backlane("dead", "redrive", dead, "--url", url).exit_code == 0
