"""`backlane schedules`, and looking for jobs by tag, workflow and time."""

from __future__ import annotations

import json
import uuid

import pytest

from backlane.engine.scheduling import Put

PUT = ("schedules", "put", "shop:app", "mails", "shop.send_mail")


@pytest.fixture
def put(backlane):
    """A schedule that was put: `put("--every", "60")`."""

    def run(*options: str, arguments: tuple[str, ...] = ("to=a@b",)):
        return backlane(*PUT, *arguments, *options)

    return run


def test_a_schedule_is_put_and_listed(backlane, put, url):
    result = put("--cron", "0 3 * * *", "--tz", "Europe/Paris", "--jitter", "60")
    lines = backlane("schedules", "list", "--url", url).stdout.splitlines()

    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("schedule mails: 0 3 * * * (Europe/Paris), next 2")
    assert lines[0].split() == ["schedule", "task", "rule", "next", "by", "last", "job"]
    assert "0 3 * * * (Europe/Paris)" in lines[1]
    assert lines[1].split()[-2:] == ["hand", "-"]


def test_json_names_every_part_of_a_schedule(put, shown):
    put("--every", "90", "--catch-up", "all", "--most", "5", "--jitter", "1.5")

    (found,) = shown("schedules", "list")

    assert found.pop("next").endswith("Z")
    assert found == {
        "name": "mails",
        "task": "shop.send_mail",
        "rule": "every 0:01:30",
        "declared": False,
        "paused": False,
        "last_job": None,
        "catch_up": "all",
        "jitter_seconds": 1.5,
        "arguments": {"to": "a@b"},
    }


def test_the_next_times_are_told(backlane, put, shown, url):
    put("--cron", "@hourly")

    result = backlane("schedules", "next", "mails", "--number", "3", "--url", url)

    assert [line[14:] for line in result.stdout.splitlines()] == ["00:00 UTC"] * 3
    assert len(shown("schedules", "next", "mails")["next"]) == 5


def test_it_is_paused_resumed_and_removed(backlane, put, shown, url):
    put("--every", "60")
    paused = backlane("schedules", "pause", "mails", "--url", url)
    listed = backlane("schedules", "list", "--url", url)
    resumed = backlane("schedules", "resume", "mails", "--url", url)
    removed = backlane("schedules", "remove", "mails", "--url", url)

    assert paused.stdout == "schedule mails is paused\n"
    assert " paused " in listed.stdout
    assert resumed.stdout.startswith("schedule mails is due next 2")
    assert removed.stdout == "schedule mails is removed\n"
    assert shown("schedules", "list") == []


def test_it_is_run_now(backlane, put, shown, url):
    put("--at", "2099-01-01T12:00:00+00:00", "--queue", "mail", "--priority", "9")

    result = backlane("schedules", "run", "shop:app", "mails")

    job = shown("jobs", "show", result.stdout.strip())
    assert (job["task"], job["priority"], job["arguments"]) == ("shop.send_mail", 9, {"to": "a@b"})
    assert job["headers"]["schedule"] == "mails"


def test_what_code_declares_says_that_it_comes_back(backlane, engine, url):
    put = Put(spec=b'{"every_ms":60000}', task="shop.ship", is_declared=True)
    engine.run(engine.alter_schedule("daily", put))

    assert " code " in backlane("schedules", "list", "--url", url).stdout
    result = backlane("schedules", "remove", "daily", "--url", url)

    assert result.stdout == "schedule daily is removed; it comes back while code declares it\n"


def test_a_store_without_any_says_so(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("schedules", "list", "--url", url)

    assert result.stdout == "no schedules: none was put, and no worker has declared one\n"


@pytest.mark.parametrize(
    ("options", "arguments", "told"),
    [
        ((), ("to=a@b",), "give one of --cron, --every and --at"),
        (("--every", "60", "--cron", "@daily"), ("to=a@b",), "give one of --cron, --every"),
        (("--every", "60", "--tz", "UTC"), ("to=a@b",), "--tz goes with --cron"),
        (("--every", "0.5"), ("to=a@b",), "0.5 is not in the range"),
        (("--cron", "61 * * * *"), ("to=a@b",), "bad minute"),
        (("--cron", "@daily", "--tz", "Europe/Pari"), ("to=a@b",), "did you mean 'Europe/Paris'"),
        (("--at", "tomorrow"), ("to=a@b",), "is no time"),
        (("--at", "2099-01-01"), ("to=a@b",), "without a time zone"),
        (("--at", "2020-01-01T00:00:00Z"), ("to=a@b",), "would never fire"),
        (("--every", "60", "--catch-up", "some"), ("to=a@b",), "'some' is not one of"),
        (("--every", "60"), ("too=a@b",), "too"),
        (("--every", "60"), ("to",), "is no argument"),
    ],
)
def test_bad_words_are_wrong_use_and_put_nothing(put, here, options, arguments, told):
    result = put(*options, arguments=arguments)

    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("verb", ["pause", "resume", "remove", "next"])
def test_an_unknown_schedule_is_refused_with_the_nearest(backlane, put, url, verb):
    put("--every", "60")

    result = backlane("schedules", verb, "mail", "--url", url)

    assert result.exit_code == 1
    assert "did you mean 'mails'?" in result.stderr


# -- looking for jobs --


def test_jobs_are_found_by_tag_workflow_and_time(backlane, shown, stage):
    workflow = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    (job,) = stage.enqueued("mail", 1, tags=("billing",), workflow=workflow.bytes)
    stage.enqueued("mail", 2)

    def ids(*filters: str) -> list[str]:
        return [each["id"] for each in shown("jobs", "list", *filters)["jobs"]]

    assert ids("--tag", "billing") == ids("--workflow", str(workflow)) == [job]
    assert len(ids("--since", "15m")) == len(ids("--since", "2020-01-01")) == 3
    assert ids("--before", "15m") == ids("--since", "2099-01-01T00:00:00Z") == []
    assert ids("--tag", "other") == []
    detail = shown("jobs", "show", job)
    assert (detail["tags"], detail["workflow"]) == (["billing"], str(workflow))
    text = backlane("jobs", "show", job, "--url", "sqlite:///shop.db").stdout
    assert "tags  billing" in text


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        (("--since", "yesterday"), "is no time"),
        (("--since", "15x"), "is no time"),
        (("--workflow", "7"), "is not a job id"),
    ],
)
def test_filters_that_cannot_be_are_wrong_use(backlane, stage, url, filters, told):
    result = backlane("jobs", "list", *filters, "--url", url)

    assert result.exit_code == 2
    assert told in result.stderr


def test_jobs_are_cancelled_by_tag(backlane, shown, stage, url):
    stage.enqueued("mail", 2, tags=("billing",))
    stage.enqueued("mail", 1)

    result = backlane("jobs", "cancel", "--tag", "billing", "--yes", "--url", url)

    assert result.exit_code == 0, result.stderr
    assert len(json.loads(json.dumps(shown("jobs", "list", "--state", "ready")["jobs"]))) == 1
