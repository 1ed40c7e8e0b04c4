"""Both clients on a real gateway, with a real worker and a real store."""

from __future__ import annotations

import uuid

import pytest
from tests.serving import served

from backlane import (
    BadOption,
    JobFailed,
    JobNotFound,
    KeyReused,
    LeaseLost,
    State,
    UnknownQueue,
    UnknownTask,
    WrongUse,
)
from backlane.errors import BadArguments, Forbidden, GatewayRefused, Unauthorized
from backlane.gateway import gateway, tokens

NOBODY = uuid.UUID("01900000-0000-7000-8000-00000000000a")


def test_a_job_is_submitted_and_its_result_waited_for(caller, url):
    client = caller.client(url)

    job = caller.get(client.submit("double", {"number": 21}))

    assert job.submitted.task == "double"
    assert 0 <= job.pressure <= 1
    assert caller.get(job.result(timeout=10)) == 42
    assert caller.get(job.record()).state is State.SUCCEEDED


def test_a_short_job_comes_back_with_its_result(caller, url):
    client = caller.client(url)

    job = caller.get(client.submit("double", {"number": 4}, wait=10))

    assert job.submitted.state is State.SUCCEEDED
    assert job.submitted.value() == 8


def test_a_failure_is_raised_with_what_is_told_of_it(caller, url):
    client = caller.client(url)
    job = caller.get(client.submit("fail"))

    with pytest.raises(JobFailed, match="boom") as caught:
        caller.get(job.result(timeout=10))

    assert caught.value.error.kind.endswith("ValueError")


def test_a_job_is_followed_to_its_end(caller, url):
    client = caller.client(url)
    job = caller.get(client.submit("steps", {"number": 3}))

    records = caller.list(job.events())

    revisions = [record.revision for record in records]
    assert revisions == sorted(set(revisions))
    assert records[-1].state is State.SUCCEEDED
    assert any(record.progress for record in records)


def test_a_job_is_cancelled_and_retried_by_its_id(caller, idle_url):
    client = caller.client(idle_url)
    made = caller.get(client.submit("double", {"number": 1}))
    job = client.job(str(made.id))

    assert caller.get(job.cancel()).state is State.CANCELLED
    assert caller.get(job.retry()).state is State.READY
    with pytest.raises(GatewayRefused, match="ready"):
        caller.get(job.retry())


def test_the_same_id_is_the_same_job(caller, idle_url):
    client = caller.client(idle_url)

    first = caller.get(client.submit("double", {"number": 1}))
    again = caller.get(client.submit("double", {"number": 1}, id=first.id))

    assert again == first
    assert appended(caller, client, "default") == 1


def test_an_idempotency_key_is_good_for_one_submission(caller, idle_url):
    client = caller.client(idle_url)
    first = caller.get(client.submit("double", {"number": 1}, idempotency_key="once"))
    again = caller.get(client.submit("double", {"number": 1}, idempotency_key="once"))

    assert again == first
    with pytest.raises(KeyReused):
        caller.get(client.submit("double", {"number": 2}, idempotency_key="once"))


@pytest.mark.parametrize(
    ("task", "arguments", "error"),
    [
        ("double", {"number": "x"}, BadArguments),
        ("double", {}, BadArguments),
        ("dubble", {}, UnknownTask),
    ],
)
def test_what_does_not_fit_is_told(caller, idle_url, task, arguments, error):
    client = caller.client(idle_url)

    with pytest.raises(error):
        caller.get(client.submit(task, arguments))


def test_a_job_that_is_not_there_is_told(caller, idle_url):
    job = caller.client(idle_url).job(NOBODY)

    with pytest.raises(JobNotFound):
        caller.get(job.result(timeout=5))
    with pytest.raises(JobNotFound):
        caller.list(job.events())


def test_an_address_that_is_no_gateway_is_told(caller, idle_url):
    client = caller.client(f"{idle_url}/somewhere")

    with pytest.raises(GatewayRefused):
        caller.get(client.submit("double", {"number": 1}))


def test_queues_are_read_and_steered(caller, idle_url):
    client = caller.client(idle_url)
    caller.get(client.submit("brief", {"number": 1}))
    queue = client.queue("small")

    assert caller.get(queue.record()).depth.ready == 1
    assert caller.get(queue.pause()).paused
    assert not caller.get(queue.resume()).paused
    assert caller.get(queue.tune(max_jobs=7, max_wait=5)).bounds.max_jobs == 7
    assert caller.get(queue.tune(reset=True)).bounds.max_jobs == 5
    assert "small" in [each.name for each in caller.get(client.queues())]
    with pytest.raises(UnknownQueue):
        caller.get(client.queue("nobody").record())


def test_messages_are_sent_received_and_acked(caller, idle_url):
    orders = caller.client(idle_url).messages("orders")
    bodies = [b"one", bytes(range(256)), b""]
    for body in bodies:
        caller.get(orders.send(body))

    received = caller.get(orders.receive(max=10, wait=5, lease=30))
    caller.get(orders.extend(received[0].receipt, by=60))
    caller.get(orders.ack(received[0].receipt))
    caller.get(orders.release(received[1].receipt))

    assert [message.body for message in received] == bodies
    with pytest.raises(LeaseLost):
        caller.get(orders.ack(received[0].receipt))
    lost = caller.get(orders.ack_many([message.receipt for message in received]))
    assert lost == [received[0].receipt, received[1].receipt]


def appended(caller, client, queue: str) -> int:
    return caller.get(client.queue(queue).record()).counters.appended


def test_a_token_opens_what_its_scopes_say(caller, app, tmp_path):
    file = tmp_path / "tokens.toml"
    secret = tokens.add(file, "shop", ["submit:double"])
    with served(gateway(app, tokens=file)) as where:
        known = caller.client(where, token=secret)
        unknown = caller.client(where, token="guessed")
        nobody = caller.client(where)

        job = caller.get(known.submit("double", {"number": 1}))
        with pytest.raises(Forbidden, match="submit"):
            caller.get(known.submit("brief", {"number": 1}))
        with pytest.raises(Forbidden, match="read"):
            caller.get(job.record())
        for client in (unknown, nobody):
            with pytest.raises(Unauthorized):
                caller.get(client.submit("double", {"number": 1}))


def test_a_client_that_is_closed_says_so(caller, idle_url):
    client = caller.client(idle_url)
    caller.get(client.aclose() if hasattr(client, "aclose") else client.close())

    with pytest.raises(WrongUse, match="closed"):
        caller.get(client.submit("double", {"number": 1}))


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("localhost:8000", {}),
        ("ftp://localhost", {}),
        ("http://me:secret@localhost", {}),
        ("http://localhost", {"token": "a\nb"}),
        ("http://localhost", {"deadline": 0}),
        ("http://localhost", {"attempts": 0}),
        ("http://localhost", {"timeout": -1}),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(caller, url, settings):
    with pytest.raises(BadOption):
        caller.client(url, **settings)
