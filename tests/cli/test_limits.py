"""`backlane limits`, and what other commands show of blocked jobs."""

from __future__ import annotations

import pytest

from backlane.engine.limiting import Declared
from backlane.model.limit import Limit, Use

STRIPE = (Use("stripe"),)


@pytest.fixture
def limited(stage):
    """A store with three jobs under a limit that allows one."""
    stage.engine.run(stage.engine.regulate("stripe", Declared(Limit(concurrency=1))))
    stage.jobs = stage.enqueued("mail", 3, uses=STRIPE)
    return stage


def test_limits_are_listed_with_what_runs_and_waits(backlane, limited, url):
    limited.claimed(limited.jobs[0])

    lines = backlane("limits", "list", "--url", url).stdout.splitlines()

    assert lines[0].split() == ["limit", "in", "force", "running", "blocked", "tuned"]
    assert lines[1].split() == ["stripe", "1", "at", "a", "time", "1", "2"]


def test_json_names_every_part_of_a_limit(backlane, shown, limited, url):
    backlane("limits", "tune", "stripe", "--rate", "10/m", "--burst", "2", "--url", url)

    assert shown("limits", "list") == [
        {
            "name": "stripe",
            "concurrency": 1,
            "rate": "10/m",
            "burst": 2,
            "per_group": False,
            "declared": "1 at a time",
            "tuned": "1 at a time, 10/m, 2 at once",
            "running": 0,
            "blocked": 2,
        }
    ]


def test_a_store_without_any_says_so(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("limits", "list", "--url", url)

    assert result.stdout == "no limits: no job was enqueued here that is under one\n"


def test_a_limit_is_tuned_and_reset(backlane, limited, url):
    raised = backlane("limits", "tune", "stripe", "--concurrency", "5", "--url", url)
    listed = backlane("limits", "list", "--url", url)
    lifted = backlane("limits", "tune", "stripe", "--concurrency", "none", "--url", url)
    reset = backlane("limits", "tune", "stripe", "--reset", "--url", url)

    assert raised.stdout == "limit stripe: 5 at a time\n"
    assert "instead of: 1 at a time" in listed.stdout
    assert lifted.stdout == "limit stripe: not limited\n"
    assert reset.stdout == "limit stripe: 1 at a time\n"


def test_a_queue_can_be_given_a_limit(backlane, shown, stage, url):
    stage.enqueued("mail")

    result = backlane("limits", "tune", "queue:mail", "--rate", "50/s", "--url", url)

    assert result.stdout == "limit queue:mail: 50/s, 5 at once\n"
    assert shown("limits", "list")[0]["declared"] == "not limited"


def test_an_unknown_limit_is_refused_with_the_nearest(backlane, limited, url):
    result = backlane("limits", "tune", "strpe", "--concurrency", "5", "--url", url)

    assert result.exit_code == 1
    assert "no limit 'strpe'" in result.stderr
    assert "did you mean 'stripe'?" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--concurrency", "0"], "use a whole number from 1"),
        (["--concurrency", "many"], "use a whole number from 1, or 'none'"),
        (["--concurrency", "-1"], "use a whole number from 1, or 'none'"),
        (["--rate", "fast"], "use a text such as '100/s'"),
        (["--rate", "2000000/s"], "more than 1,000,000 a second"),
        (["--burst", "0"], "0 is not in the range"),
        (["--burst", "3"], "burst is a part of a rate"),
        (["--reset", "--rate", "1/s"], "--reset forgets what was tuned; give it alone"),
        ([], "nothing is to be changed"),
    ],
)
def test_bad_tuning_is_wrong_use(backlane, limited, url, options, told):
    result = backlane("limits", "tune", "stripe", *options, "--url", url)

    assert result.exit_code == 2
    assert told in result.stderr


# -- blocked jobs --


def test_a_list_says_what_a_blocked_job_waits_for(backlane, limited, url):
    result = backlane("jobs", "list", "--state", "blocked", "--url", url)

    assert result.stdout.count("limit stripe") == 2


def test_a_blocked_job_says_what_it_waits_for(backlane, shown, limited, url):
    result = backlane("jobs", "show", limited.jobs[2], "--url", url)
    detail = shown("jobs", "show", limited.jobs[2])

    assert "limit stripe" in result.stdout
    assert (detail["state"], detail["blocked_on"], detail["waits_for"]) == ("blocked", "stripe", 0)


def test_a_queue_shows_its_blocked_jobs(backlane, shown, limited, url):
    lines = backlane("queues", "list", "--url", url).stdout.splitlines()
    (queue,) = shown("queues", "list")

    assert lines[0].split()[2:6] == ["ready", "scheduled", "blocked", "running"]
    assert lines[1].split()[2:6] == ["1", "0", "2", "0"]
    assert (queue["blocked"], queue["fair"]) == (2, False)
