"""`backlane enqueue`."""

from __future__ import annotations

import json

import pytest


def arguments(shown, job: str) -> object:
    return shown("jobs", "show", job)["arguments"]


@pytest.mark.parametrize(
    "given",
    [
        ('{"order": 7, "day": "2030-01-01"}',),
        ("order=7", "day=2030-01-01"),
        ("order=7", 'day="2030-01-01"', "note="),
    ],
)
def test_a_call_is_enqueued_from_words_and_its_id_printed(backlane, shown, given):
    result = backlane("enqueue", "shop:app", "shop.ship", *given)

    assert result.exit_code == 0, result.stderr
    stored = arguments(shown, result.stdout.strip())
    assert (stored["order"], stored["day"]) == (7, "2030-01-01")


def test_text_stays_text_where_the_parameter_is_text(backlane, shown):
    result = backlane("enqueue", "shop:app", "shop.ship", "order=7", "day=2030-01-01", "note=42")

    assert arguments(shown, result.stdout.strip())["note"] == "42"


def test_options_travel_with_the_job(backlane, shown):
    options = ("--delay", "60", "--priority", "9", "--queue", "mail", "--key", "k", "--group", "g")

    result = backlane("enqueue", "shop:app", "shop.send_mail", "to=a@b", *options)

    job = shown("jobs", "show", result.stdout.strip())
    assert (job["state"], job["priority"], job["queue"]) == ("scheduled", 9, "mail")
    assert (job["key"], job["group"]) == ("k", "g")


def test_the_same_id_is_the_same_job(backlane, shown):
    made = json.loads(backlane("enqueue", "shop:app", "shop.send_mail", "to=a", "--json").stdout)

    again = backlane("enqueue", "shop:app", "shop.send_mail", "to=a", "--id", made["id"])

    assert again.stdout.strip() == made["id"]
    assert len(shown("jobs", "list")["jobs"]) == 1


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("shop.shipp", "order=7"), 1, "did you mean 'shop.ship'?"),
        (("nothing.alike",), 1, "it has shop.send_mail, shop.ship"),
        (("shop.ship", "order=seven", "day=2030-01-01"), 2, "$.order"),
        (("shop.ship", "order=7"), 2, "day"),
        (("shop.ship", "order=7", "day=2030-01-01", "colour=red"), 2, "colour"),
        (("shop.ship", "7"), 2, "use name=value"),
        (("shop.ship", "order=7", "order=8"), 2, "given twice"),
        (("shop.ship", "{not json"), 2, "not a JSON object"),
        (("shop.ship", '{"order": 7} trailing'), 2, "not a JSON object"),
        (("shop.send_mail", "to=a", "--queue", "no way"), 2, "queue"),
        (("shop.send_mail", "to=a", "--id", "7"), 2, "is not a job id"),
        (("shop.send_mail", "to=a", "--priority", "10"), 2, "priority"),
        (("shop.send_mail", "to=a", "--delay", "-1"), 2, "delay"),
        (("shop.send_mail", "to=a", "--delay", "nan"), 2, "delay"),
    ],
)
def test_what_cannot_be_enqueued_is_told_in_one_line(backlane, here, given, code, said):
    result = backlane("enqueue", "shop:app", *given)

    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_wait_without_a_worker_ends_with_the_timeout(backlane, shown):
    result = backlane("enqueue", "shop:app", "shop.send_mail", "to=a", "--timeout", "0.05")

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert shown("jobs", "show", result.stdout.strip())["state"] == "ready"


def test_a_store_in_memory_would_forget_the_job_at_once_so_it_is_refused(backlane, here):
    source = (here / "shop.py").read_text().replace("sqlite:///shop.db", "memory://")
    (here / "shop.py").write_text(source)

    result = backlane("enqueue", "shop:app", "shop.send_mail", "to=a")

    assert result.exit_code == 1
    assert "lives inside one process" in result.stderr
