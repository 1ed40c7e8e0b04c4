"""Raw messages over HTTP: send, receive, ack, release, extend."""

from __future__ import annotations

import base64
import threading
import time
from typing import Any

import pytest
from tests.gateway.conftest import key
from tests.gateway.served import Served, passed
from tests.gateway.test_submit import kind
from tests.hand import only, take


def send(site: Served, body: bytes = b"hi", queue: str = "orders", **params: Any) -> str:
    answer = site.client.post(f"/v1/queues/{queue}/messages", content=body, params=params)
    assert answer.status_code == 202, answer.text
    made: str = answer.json()["id"]
    return made


def receive(site: Served, queue: str = "orders", **params: Any) -> list[dict[str, Any]]:
    answer = site.client.post(f"/v1/queues/{queue}/receive", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["messages"]
    return found


def test_a_message_comes_back_as_it_was_sent(fresh: Served):
    body = bytes(range(256))
    made = send(fresh, body)

    message = receive(fresh)[0]

    assert (message["id"], message["attempt"]) == (made, 1)
    assert base64.b64decode(message["body"]) == body


def test_an_empty_message_is_a_message(fresh: Served):
    send(fresh, b"")

    assert receive(fresh)[0]["body"] == ""


def test_what_was_acked_is_done_with(fresh: Served):
    send(fresh)
    receipt = receive(fresh, lease=1)[0]["receipt"]

    answer = fresh.post("/v1/queues/orders/ack", {"receipts": [receipt, receipt]}).json()
    again = fresh.post("/v1/queues/orders/ack", {"receipts": [receipt]}).json()

    assert answer == {"done": [receipt, receipt], "lost": []}
    assert again == {"done": [], "lost": [receipt]}
    assert fresh.client.get("/v1/queues/orders").json()["depth"]["jobs"] == 0


def test_what_was_released_is_delivered_again(fresh: Served):
    send(fresh)
    first = receive(fresh)[0]

    done = fresh.post("/v1/queues/orders/release", {"receipts": [first["receipt"]]}).json()["done"]
    second = receive(fresh)[0]

    assert done == [first["receipt"]]
    assert second["id"] == first["id"]
    assert second["receipt"] != first["receipt"]


def test_what_is_released_with_a_delay_comes_back_after_it(fresh: Served):
    send(fresh)
    receipt = receive(fresh)[0]["receipt"]
    began = time.monotonic()

    fresh.post("/v1/queues/orders/release", {"receipts": [receipt], "delay": 0.5})

    assert receive(fresh) == []
    assert len(receive(fresh, wait=10)) == 1
    assert passed(0.5, began)


def test_a_lease_is_extended(fresh: Served):
    send(fresh)
    receipt = receive(fresh, lease=0.5)[0]["receipt"]

    answer = fresh.post("/v1/queues/orders/extend", {"receipts": [receipt], "by": 30}).json()
    time.sleep(0.6)

    assert answer["done"] == [receipt]
    assert receive(fresh) == []


def test_a_receive_waits_for_the_first_message(fresh: Served):
    later = threading.Timer(0.3, lambda: fresh.app.messages("orders").send(b"x"))
    later.start()

    found = receive(fresh, wait=20)
    later.join()

    assert len(found) == 1


def test_as_many_come_as_are_asked_for(fresh: Served):
    for _ in range(3):
        send(fresh)

    assert [len(receive(fresh, max=2)), len(receive(fresh, max=2))] == [2, 1]


def test_options_reach_the_message(fresh: Served):
    send(fresh, b"late", priority=1)
    send(fresh, b"soon", priority=9, group="acme")
    send(fresh, b"hidden", delay=60, expires=90)

    found = receive(fresh, max=10)

    assert [base64.b64decode(it["body"]) for it in found] == [b"soon", b"late"]


def test_an_idempotency_key_sends_once(fresh: Served):
    headers = {"Idempotency-Key": key()}

    first, again = (
        fresh.client.post("/v1/queues/orders/messages", content=b"x", headers=headers).json()["id"]
        for _ in range(2)
    )
    other = fresh.client.post("/v1/queues/orders/messages", content=b"y", headers=headers)

    assert first == again
    assert (other.status_code, kind(other)) == (422, "key-reused")


# -- refused --


def test_a_receipt_of_another_queue_is_lost(fresh: Served):
    send(fresh)
    receipt = receive(fresh)[0]["receipt"]

    answer = fresh.post("/v1/queues/post/ack", {"receipts": [receipt]}).json()

    assert answer == {"done": [], "lost": [receipt]}


def test_nobody_can_make_up_a_receipt_for_a_job_that_runs(fresh: Served):
    """Ids are shown to readers, and tokens are small: unsigned, it would end the job."""
    job = fresh.submit("nothing").json()["id"]
    lease = only(take(fresh.app))
    made_up = f"{lease.job.hex()}.{lease.token}"

    for receipt in (made_up, f"{made_up}.", f"{made_up}.{'0' * 32}"):
        answer = fresh.post("/v1/queues/orders/ack", {"receipts": [receipt]}).json()
        assert answer["lost"] == [receipt]

    assert fresh.client.get(f"/v1/jobs/{job}").json()["state"] == "running"


@pytest.mark.parametrize("receipt", ["", ".", "x", "ü", "\ud800", "a.b.c", "0" * 32 + ".1", "\0"])
def test_what_is_no_receipt_is_lost(site: Served, receipt: str):
    body = b'{"receipts": ["%s"]}' % receipt.encode("unicode_escape").replace(b"\\x", b"\\u00")

    answer = site.client.post(
        "/v1/queues/orders/ack", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json()["done"] == []


@pytest.mark.parametrize(
    "body", [{}, [], {"receipts": "x"}, {"receipts": [1]}, {"receipts": ["x"] * 101}, {"x": 1}]
)
def test_a_body_without_receipts_is_refused(site: Served, body: object):
    answer = site.post("/v1/queues/orders/ack", body)

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")


@pytest.mark.parametrize(
    "params",
    [
        {"max": 0},
        {"max": 101},
        {"max": "x"},
        {"max": "1.5"},
        {"max": "٣"},
        {"wait": "x"},
        {"lease": 0},
        {"lease": "-1"},
    ],
)
def test_a_receive_that_cannot_work_is_refused(site: Served, params: dict[str, Any]):
    answer = site.client.post("/v1/queues/orders/receive", params=params)

    assert answer.status_code == 422


@pytest.mark.parametrize(
    "params",
    [{"delay": "x"}, {"priority": 10}, {"key": ""}, {"group": "x" * 300}, {"expires": "-1"}],
)
def test_a_send_that_cannot_work_is_refused(site: Served, params: dict[str, Any]):
    answer = site.client.post("/v1/queues/orders/messages", content=b"x", params=params)

    assert answer.status_code == 422


def test_a_message_above_the_limit_of_a_job_is_refused(site: Served):
    answer = site.client.post("/v1/queues/orders/messages", content=b"x" * 100_001)

    assert (answer.status_code, kind(answer)) == (413, "too-large")


def test_a_queue_of_tasks_takes_no_messages(site: Served):
    answer = site.client.post("/v1/queues/default/messages", content=b"x")

    assert (answer.status_code, kind(answer)) == (409, "wrong-kind")


def test_a_queue_that_is_not_declared_takes_no_messages(site: Served):
    answer = site.client.post("/v1/queues/none/messages", content=b"x")

    assert (answer.status_code, kind(answer)) == (404, "unknown-queue")
