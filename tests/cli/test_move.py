"""`backlane move`: what it says and refuses, and that a kill at any moment changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backlane import Backlane, Queue, QueueFull, State, StoreMoved
from backlane.cli import main
from backlane.engine.connect import connect
from backlane.engine.moving import Seal
from backlane.engine.protocol import Engine, Wanted
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock
from backlane.model.outcome import ErrorRecord, Failed, Reason, RetryAfter, Settlement, Succeeded

BOOM = ErrorRecord("builtins.ValueError", "boom")


@pytest.fixture
def old(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'old.db'}"


@pytest.fixture
def new(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new.db'}"


@pytest.fixture
def app(old: str) -> Iterator[Backlane]:
    made = application(old)
    yield made
    made.close()


def application(url: str) -> Backlane:
    app = Backlane(url, queues=[Queue("mail", max_jobs=1_000_000)])

    @app.task(queue="mail", name="send")
    def send(number: int) -> int:
        return number

    return app


def send(app: Backlane, number: int, **options: object) -> uuid.UUID:
    return app.tasks["send"].using(**options).enqueue(number).id


def move(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["move", *arguments])


def engine(url: str) -> closing[Engine]:
    return closing(connect(url, SystemClock()))


def lease(app: Backlane):
    (claimed,) = app.engine.run(app.engine.claim(Wanted("ann", 1, 60_000, ("mail",)))).leases
    return claimed


def settle(app: Backlane, claimed, outcome) -> None:
    app.engine.run(app.engine.settle([Settlement(claimed.job, claimed.token, outcome)]))


def states(url: str) -> dict[uuid.UUID, State]:
    with engine(url) as opened:
        records = opened.run(opened.find(Selection(), 10_000)).records
    return {uuid.UUID(bytes=record.id): record.state for record in records}


def test_what_waits_and_what_died_goes_over(app, old, new) -> None:
    done = send(app, 1)
    settle(app, lease(app), Succeeded())
    dead = send(app, 2)
    settle(app, lease(app), Failed(Reason.ERROR, BOOM))
    waiting, later = send(app, 3), send(app, 4, delay=60)

    result = move(old, new)

    assert result.exit_code == 0, result.output
    assert "moved 3 jobs" in result.output
    assert states(new) == {
        dead: State.FAILED, waiting: State.READY, later: State.SCHEDULED
    }  # fmt: skip
    assert states(old) == {done: State.SUCCEEDED}


def test_history_goes_over_when_asked(app, old, new) -> None:
    done = send(app, 1)
    settle(app, lease(app), Succeeded())

    result = move(old, new, "--history", "--json")

    assert states(new) == {done: State.SUCCEEDED}
    document = json.loads(result.stdout)
    assert (document["jobs"], document["ended"], document["done"]) == (1, 1, True)


def test_a_moved_store_says_where_to(app, old, new) -> None:
    send(app, 1)
    assert move(old, new).exit_code == 0

    with pytest.raises(StoreMoved) as refused:
        send(app, 2)

    assert refused.value.to == new
    assert new in str(refused.value)


def test_an_id_that_was_moved_is_known_there(app, old, new) -> None:
    job = send(app, 1)
    move(old, new)

    with closing(application(new)) as there:
        assert send(there, 1, id=job) == job

    assert list(states(new)) == [job]


def test_a_producer_is_told_to_come_again_while_it_is_moved(app) -> None:
    send(app, 1)
    app.engine.run(app.engine.seal(Seal("sqlite:///new.db")))

    with pytest.raises(QueueFull) as refused:
        send(app, 2)

    assert (refused.value.limit, refused.value.can_fit) == ("moving", True)
    assert timedelta(seconds=2) <= refused.value.retry_after <= timedelta(seconds=4)
    assert "moved" in str(refused.value)


def test_a_producer_that_waits_for_room_waits_through_a_move_given_up(app, old, new) -> None:
    app.engine.run(app.engine.seal(Seal(new)))
    helper = subprocess.Popen(  # gives it up in a second, while we wait below
        [sys.executable, "-c", f"import time; time.sleep(1); {GIVE_UP.format(old, new)}"]
    )

    job = send(app, 1, on_full="wait", on_full_timeout=20)

    assert helper.wait(20) == 0
    assert states(old) == {job: State.READY}


GIVE_UP = "from backlane.cli import main; main(['move', {!r}, {!r}, '--back'])"


def test_a_producer_that_waits_is_told_once_the_move_is_done(app, old, new) -> None:
    app.engine.run(app.engine.seal(Seal(new)))
    mover = subprocess.Popen([sys.executable, "-m", "backlane", "move", old, new])

    with pytest.raises(StoreMoved):
        send(app, 1, on_full="wait", on_full_timeout=20)

    assert mover.wait(20) == 0


def test_a_move_is_given_up_before_jobs_went_over(app, old, new) -> None:
    send(app, 1)
    lease(app)
    assert move(old, new, "--grace", "0").exit_code == 1

    result = move(old, new, "--back")

    assert result.exit_code == 0
    assert "open again" in result.output
    assert send(app, 2)


def test_a_move_that_began_to_hand_over_is_not_given_up(app, old, new) -> None:
    send(app, 1)
    move(old, new)

    result = move(old, new, "--back")

    assert result.exit_code == 1
    assert f"backlane move {new} {old}" in result.output


def test_what_is_not_moved_is_not_given_up(app, old, new) -> None:
    send(app, 1)

    result = move(old, new, "--back")

    assert result.exit_code == 1
    assert "is not being moved" in result.output


def test_what_still_runs_is_named_and_the_same_command_goes_on(app, old, new) -> None:
    job = send(app, 1)
    claimed = lease(app)

    result = move(old, new, "--grace", "0.3")

    assert result.exit_code == 1
    assert str(job) in result.output
    assert "--back" in result.output
    settle(app, claimed, RetryAfter(0, BOOM))
    assert move(old, new).exit_code == 0
    assert states(new) == {job: State.READY}


def test_the_jobs_of_a_dead_worker_are_not_waited_for(app, old, new) -> None:
    job = send(app, 1)
    engine = app.engine
    life = engine.enlist("ann")
    lease(app)
    life.close()

    result = move(old, new, "--grace", "20")

    assert result.exit_code == 0, result.output
    with closing(application(new)) as there:
        claimed = lease(there)
    assert (claimed.job, claimed.token, claimed.attempt) == (job.bytes, 2, 1)


def test_a_store_is_moved_there_and_back(app, old, new) -> None:
    job = send(app, 1)
    assert move(old, new).exit_code == 0

    assert move(new, old).exit_code == 0

    assert states(old) == {job: State.READY}
    assert send(app, 2)
    with closing(application(new)) as there, pytest.raises(StoreMoved):
        send(there, 3)


def test_moving_again_finds_nothing(app, old, new) -> None:
    send(app, 1)
    move(old, new)

    result = move(old, new)

    assert result.exit_code == 0
    assert "moved 0 jobs" in result.output


def test_settings_go_over(app, old, new) -> None:
    send(app, 1)
    assert CliRunner().invoke(main, ["queues", "pause", "mail", "--url", old]).exit_code == 0

    move(old, new)

    with engine(new) as there:
        (queue,) = there.run(there.list_queues())
    assert (queue.paused, queue.appended) == (True, 1)


def test_a_damaged_job_stays_behind_and_is_counted(app, old, new) -> None:
    import apsw

    send(app, 1)
    connection = apsw.Connection(old.removeprefix("sqlite:///"))
    connection.execute("update backlane_job set task = cast(x'ff' as text)")
    connection.close()
    well = send(app, 2)

    result = move(old, new)

    assert result.exit_code == 0
    assert "1 damaged job" in result.output
    assert states(new) == {well: State.READY}


# -- refused --


@pytest.mark.parametrize("spelt", ["{}", "{}?durability=normal"])
def test_a_store_is_not_moved_to_itself(app, old, spelt) -> None:
    send(app, 1)

    result = move(old, spelt.format(old))

    assert result.exit_code == 1
    assert ("named twice" in result.output) or ("the same store" in result.output)
    assert send(app, 2)


def test_nothing_is_moved_to_memory(app, old) -> None:
    send(app, 1)

    result = move(old, "memory://")

    assert result.exit_code == 1
    assert "inside one process" in result.output
    assert send(app, 2)


def test_an_unknown_scheme_is_wrong_use(app, old) -> None:
    send(app, 1)

    result = move(old, "postgrseql://db/jobs")

    assert result.exit_code == 2
    assert "postgresql" in result.output
    assert send(app, 2)


def test_a_store_that_is_not_there_is_not_made_to_be_moved(old, new, tmp_path) -> None:
    assert move(old, new).exit_code == 1

    assert list(tmp_path.glob("*.db")) == []


def test_a_move_has_one_end(app, old, new) -> None:
    send(app, 1)
    lease(app)
    move(old, new, "--grace", "0")

    result = move(old, new.replace("new", "other"))

    assert result.exit_code == 1
    assert f"is being moved to {new}" in result.output


def test_nothing_is_moved_to_a_store_that_is_being_moved(app, old, new, tmp_path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with closing(application(new)) as there:
        send(there, 1)
        lease(there)
    assert move(new, other, "--grace", "0").exit_code == 1
    send(app, 1)

    result = move(old, new)

    assert result.exit_code == 1
    assert f"is being moved to {other}" in result.output
    assert send(app, 2)


def test_a_store_that_was_moved_on_is_not_opened_again(app, old, new, tmp_path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    send(app, 1)
    move(old, new)
    move(new, other)

    result = move(old, new)

    assert result.exit_code == 1
    assert f"on to {other}" in result.output
    with closing(application(new)) as there, pytest.raises(StoreMoved):
        send(there, 2)


def test_stores_are_moved_in_a_circle(app, old, new, tmp_path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    job = send(app, 1)

    for source, target in ((old, new), (new, other), (other, old)):
        assert move(source, target).exit_code == 0

    assert states(old) == {job: State.READY}
    assert send(app, 2)


def test_a_queue_of_another_kind_is_found_before_anything_is_sealed(app, old, new) -> None:
    send(app, 1)
    with closing(Backlane(new)) as there:
        there.messages("mail").send(b"x")

    result = move(old, new)

    assert result.exit_code == 1
    assert "holds tasks" in result.output
    assert send(app, 2)


def test_an_older_mover_stops_where_another_has_taken_over(app, old, new) -> None:
    from backlane.cli.mover import Mover
    from backlane.errors import WrongUse

    send(app, 1)
    with engine(new) as there:
        first, second = (Mover(app.engine, there, told=lambda _: None) for _ in range(2))
        first.seal()
        second.seal()

        with pytest.raises(WrongUse, match="taken over"):
            first.hand_over(lambda _: None)
        second.hand_over(lambda _: None)

    assert len(states(new)) == 1
