"""`backlane queues`."""

from __future__ import annotations

import pytest

from backlane.engine.protocol import Presence, Tune
from backlane.model.outcome import Succeeded


def test_queues_are_listed_with_depth_and_bounds(backlane, stage, url):
    stage.enqueued("mail", 3)

    lines = backlane("queues", "list", "--url", url).stdout.splitlines()

    assert lines[0].split()[:3] == ["queue", "state", "ready"]
    assert lines[1].split()[:7] == ["mail", "tasks", "3", "0", "0", "0", "100,000"]


def test_json_names_every_figure(shown, stage):
    stage.failed(queue="mail")
    stage.enqueued("mail", 2)

    (queue,) = shown("queues", "list")

    assert (queue["name"], queue["ready"], queue["depth"], queue["failed"]) == ("mail", 2, 2, 1)
    assert queue["max_bytes"] == 256 * 1024 * 1024


def test_an_empty_store_says_so(backlane, engine, url):
    result = backlane("queues", "list", "--url", url)

    assert result.stdout == "no queues: nothing was enqueued here yet\n"


def test_a_paused_queue_gives_no_jobs_until_it_is_resumed(backlane, shown, stage, url):
    stage.enqueued("mail")

    paused = backlane("queues", "pause", "mail", "--url", url)
    state = shown("queues", "list")[0]["paused"]
    backlane("queues", "resume", "mail", "--url", url)

    assert paused.stdout.startswith("queue mail paused")
    assert state is True
    assert shown("queues", "list")[0]["paused"] is False


def test_one_unknown_queue_among_several_changes_none(backlane, shown, stage, url):
    stage.enqueued("mail")

    result = backlane("queues", "pause", "mail", "mial", "--url", url)

    assert result.exit_code == 1
    assert "did you mean 'mail'?" in result.stderr
    assert shown("queues", "list")[0]["paused"] is False


@pytest.mark.parametrize(
    ("given", "size"), [("1048576", 2**20), ("64KiB", 2**16), ("64k", 2**16), ("2 GiB", 2**31)]
)
def test_tune_sets_bounds_in_any_unit(shown, stage, given, size):
    stage.enqueued("mail")

    (queue,) = shown("queues", "tune", "mail", "--max-jobs", "7", "--max-bytes", given)

    assert (queue["max_jobs"], queue["max_bytes"]) == (7, size)


@pytest.mark.parametrize("bad", ["0", "-1", "many", "1.5MiB", "0KiB"])
def test_a_size_that_cannot_be_is_wrong_use(backlane, stage, url, bad):
    stage.enqueued("mail")

    result = backlane("queues", "tune", "mail", "--max-bytes", bad, "--url", url)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_tune_sets_the_wait_and_the_share_of_a_group(backlane, shown, stage, url):
    stage.enqueued("mail")

    said = backlane(
        "queues", "tune", "mail", "--max-wait", "30", "--group-share", "0.1", "--url", url
    )
    (queue,) = shown("queues", "list")

    assert (queue["max_wait_seconds"], queue["group_share"]) == (30.0, 0.1)
    assert "a wait of 30 s, 10% of the jobs for a group" in said.stdout


def test_tune_lifts_the_bound_on_the_wait(shown, stage):
    stage.enqueued("mail")
    stage.engine.run(stage.engine.tune("mail", Tune(max_wait_ms=5_000)))

    (queue,) = shown("queues", "tune", "mail", "--max-wait", "none")

    assert (queue["max_wait_seconds"], queue["tuned_max_wait_seconds"]) == (None, 0.0)


@pytest.mark.parametrize("bad", ["0", "-1", "soon", "nan", ""])
def test_a_wait_that_cannot_be_is_wrong_use(backlane, stage, url, bad):
    stage.enqueued("mail")

    result = backlane("queues", "tune", "mail", f"--max-wait={bad}", "--url", url)

    assert result.exit_code == 2
    assert "use seconds above 0, or 'none'" in result.stderr


def test_a_list_tells_the_pressure_and_an_unknown_wait(shown, stage):
    stage.enqueued("mail", 3)
    stage.engine.run(stage.engine.tune("mail", Tune(max_jobs=4)))

    (queue,) = shown("queues", "list")

    assert (queue["pressure"], queue["expected_wait_seconds"]) == (0.75, None)


def test_one_queue_is_shown_in_words(backlane, stage, url, monkeypatch):
    monkeypatch.setattr("backlane.cli.queues.LOOK_SECONDS", 0.01)
    stage.enqueued("mail", 3)

    lines = backlane("queues", "show", "mail", "--url", url).stdout.splitlines()

    assert lines[0] == "queue     mail (tasks)"
    assert lines[1].startswith("holds     3 ready, 0 running, 0 later")
    assert "wait      not known for a job enqueued now" in lines


def test_a_queue_that_runs_is_shown_with_its_speed(shown, stage, monkeypatch):
    monkeypatch.setattr("backlane.cli.queues.LOOK_SECONDS", 0.01)
    stage.ended(Succeeded(None), "mail", ran_ms=100)
    stage.enqueued("mail", 30)
    presence = Presence(owner="w", host="h", pid=1, queues=("mail",), slots=2, running=0)
    stage.engine.run(stage.engine.announce(presence))

    queue = shown("queues", "show", "mail")

    assert queue["expected_wait_seconds"] == pytest.approx(1.5, abs=0.2)  # 30 jobs, 20 a second


def test_reset_forgets_what_was_tuned(shown, stage):
    stage.enqueued("mail")
    stage.engine.run(stage.engine.tune("mail", Tune(max_jobs=7)))

    (queue,) = shown("queues", "tune", "mail", "--reset")

    assert (queue["max_jobs"], queue["tuned_max_jobs"]) == (100_000, None)


def test_tune_without_a_setting_is_wrong_use(backlane, stage, url):
    stage.enqueued("mail")

    assert backlane("queues", "tune", "mail", "--url", url).exit_code == 2


def test_purge_forgets_waiting_jobs_and_keeps_running_ones_and_history(backlane, shown, stage, url):
    dead = stage.failed(queue="mail")
    running, *_ = stage.enqueued("mail", 4)
    stage.claimed(running)

    result = backlane("queues", "purge", "mail", "--yes", "--url", url)

    assert (result.exit_code, result.stdout) == (0, "3 jobs deleted\n")
    left = {job["id"] for job in shown("jobs", "list")["jobs"]}
    assert left == {dead, running}


def test_purge_asks_with_the_number_of_jobs(backlane, stage, url):
    stage.enqueued("mail", 4)

    result = backlane("queues", "purge", "mail", "--url", url, input="n\n")

    assert result.exit_code == 1
    assert "forget 4 waiting jobs of queue 'mail' for good?" in result.stderr
