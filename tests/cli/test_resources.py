"""`backlane resources`."""

from __future__ import annotations

import pytest

from backlane.model.outcome import ErrorRecord, RetryAfter

DOWN = RetryAfter(60_000, ErrorRecord("ConnectionError", "refused"))


@pytest.fixture
def depending(stage):
    """A store with jobs that need `stripe`."""
    stage.enqueued("mail", 3, resource="stripe")
    return stage


def test_resources_are_listed_with_how_they_stand(backlane, depending, url):
    lines = backlane("resources", "list", "--url", url).stdout.splitlines()

    assert lines[0].split() == [
        *("resource", "state", "next", "trial", "succeeded", "failed", "trips", "reason")
    ]
    assert lines[1].split() == ["stripe", "closed", "-", "0", "0", "0"]


def test_one_that_fails_says_why_and_when_it_is_tried(shown, stage):
    for _ in range(10):
        stage.ended(DOWN, resource="stripe")

    (stripe,) = shown("resources", "list")

    assert stripe["state"] == "open"
    assert stripe["trips"] == 1
    assert stripe["reason"] == "10 attempts failed in a row; the last: ConnectionError: refused"
    assert 20 < stripe["next_trial_seconds"] <= 36


def test_a_store_without_any_says_so(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("resources", "list", "--url", url)

    assert result.stdout == "no resources: no job was enqueued here that depends on one\n"


def test_one_opened_by_hand_waits_until_it_is_closed(backlane, shown, depending, url):
    opened = backlane("resources", "open", "stripe", "--url", url)
    stands = shown("resources", "list")[0]
    closed = backlane("resources", "close", "stripe", "--url", url)

    assert opened.stdout == (
        "resource stripe is open: its jobs wait until `backlane resources close stripe`\n"
    )
    assert (stands["state"], stands["reason"]) == ("open", "by hand")
    assert closed.stdout == "resource stripe is closed: its jobs run\n"
    assert shown("resources", "list")[0]["state"] == "closed"


def test_one_opened_for_a_time_is_tried_after_it(backlane, depending, url):
    opened = backlane("resources", "open", "stripe", "--for", "600", "--url", url)

    assert "its jobs wait for 10.0 min, then a few are tried" in opened.stdout


def test_one_unknown_resource_among_several_changes_none(backlane, shown, depending, url):
    result = backlane("resources", "open", "stripe", "stirpe", "--url", url)

    assert result.exit_code == 1
    assert "did you mean 'stripe'?" in result.stderr
    assert shown("resources", "list")[0]["state"] == "closed"


@pytest.mark.parametrize("bad", ["-1", "soon", "nan"])
def test_a_time_that_cannot_be_is_wrong_use(backlane, depending, url, bad):
    result = backlane("resources", "open", "stripe", "--for", bad, "--url", url)

    assert result.exit_code == 2
