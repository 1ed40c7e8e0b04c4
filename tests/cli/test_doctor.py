"""`backlane doctor` and `backlane migrate`."""

from __future__ import annotations

import json

from backlane.engine.moving import Seal
from backlane.engine.protocol import Open, Presence, Tune


def warnings(shown) -> dict[str, str]:
    """Return the warnings by subject, joined where there are several."""
    found: dict[str, str] = {}
    for each in shown("doctor")["findings"]:
        if each["state"] != "ok":
            found[each["subject"]] = f"{found.get(each['subject'], '')} {each['text']}"
    return found


def test_a_healthy_store_passes(backlane, engine, url):
    result = backlane("doctor", "--url", url)

    assert result.exit_code == 0, result.output
    assert "error" not in result.stdout


def test_jobs_that_no_worker_serves_are_told_with_the_command_that_helps(backlane, stage, url):
    stage.enqueued("mail", 3)

    result = backlane("doctor", "--url", url)

    assert "3 jobs ready, and no worker serves it" in result.stdout
    assert "backlane worker module:app --queues mail" in result.stdout


def test_a_queue_that_is_served_is_no_finding(shown, stage):
    stage.enqueued("mail", 3)
    presence = Presence(owner="w", host="h", pid=1, queues=("mail",), slots=50, running=2)
    stage.engine.run(stage.engine.announce(presence))

    assert "queue mail" not in warnings(shown)


def test_a_queue_that_is_nearly_full_or_paused_is_told(shown, stage):
    stage.enqueued("mail", 9)
    stage.engine.run(stage.engine.tune("mail", Tune(max_jobs=10, paused=True)))

    text = warnings(shown)["queue mail"]

    assert "holds 9 of 10 jobs" in text
    assert "paused, with 9 jobs waiting" in text


def test_a_resource_that_is_down_is_told(shown, stage):
    stage.enqueued("mail", resource="stripe")
    stage.engine.run(stage.engine.steer("stripe", Open()))

    assert "open, and its jobs wait: by hand" in warnings(shown)["resource stripe"]


def test_dead_letters_are_told(shown, stage):
    stage.failed(queue="mail")

    assert "has dead letters" in warnings(shown)["queue mail"]


def test_migrate_makes_a_store_and_then_has_nothing_to_do(backlane, here):
    first = backlane("migrate", "--url", "sqlite:///new.db", "--json")
    second = backlane("migrate", "--url", "sqlite:///new.db")

    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["applied"]
    assert (here / "new.db").exists()
    assert (second.exit_code, second.stdout) == (0, "up to date\n")


def test_a_store_that_is_moved_is_told(shown, stage):
    stage.engine.run(stage.engine.seal(Seal("sqlite:///new.db")))
    assert "is being moved to sqlite:///new.db" in warnings(shown)["store"]

    stage.engine.run(stage.engine.seal(Seal("sqlite:///new.db", is_done=True)))
    assert "was moved to sqlite:///new.db" in warnings(shown)["store"]


def test_of_a_store_that_cannot_be_reached_the_cause_and_the_remedy_are_told(backlane, here):
    result = backlane("doctor", "--url", "postgresql://ann:s3cret@127.0.0.1:1/jobs")

    assert result.exit_code == 1
    assert "error  server: no connection" in result.stdout
    assert "mend it: check host, port and role" in result.stdout
    assert "s3cret" not in result.output
