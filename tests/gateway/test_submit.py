"""Submissions: a call over HTTP becomes a job, or is refused with the reason."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.gateway.conftest import NOW, key
from tests.gateway.served import Served
from tests.hand import succeed, take

from backlane.model.ids import new_id

TYPE = "application/problem+json"


def kind(answer: Any) -> str:
    """Return what kind of problem an answer tells of."""
    assert answer.headers["content-type"] == TYPE, answer.text
    told = answer.json()
    assert told["status"] == answer.status_code
    assert told["detail"]
    return told["type"].removeprefix("urn:backlane:")


# -- accepted --


def test_a_call_is_accepted_and_stored(site: Served):
    answer = site.submit("mail.send", arguments={"user_id": 7})

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "1"
    assert 0 <= float(answer.headers["backlane-pressure"]) <= 1
    assert (job["task"], job["queue"], job["state"]) == ("mail.send", "mail", "ready")
    record = site.app.job(job["id"]).record()
    assert record.body == b'{"user_id":7,"template":"hi","at":null}'


def test_the_answer_is_what_the_job_looks_like_when_it_is_read(site: Served):
    answer = site.submit(
        "mail.send", arguments={"user_id": 7}, delay=60, expires=90, priority=9, group="acme"
    ).json()

    read = site.client.get(f"/v1/jobs/{answer['id']}").json()
    times = ("enqueued_at", "due_at", "expires_at")
    for name in times:
        apart = datetime.fromisoformat(answer.pop(name)) - datetime.fromisoformat(read.pop(name))
        assert abs(apart) < timedelta(seconds=1), name
    assert answer == read
    assert answer["state"] == "scheduled"


def test_an_empty_body_is_a_call_without_arguments(site: Served):
    answer = site.client.post("/v1/tasks/nothing/jobs")

    assert answer.status_code == 202


def test_options_reach_the_job(site: Served):
    at = datetime.now(UTC) + timedelta(hours=1)

    answer = site.client.post(
        "/v1/tasks/mail.send/jobs",
        json={"arguments": {"user_id": 7}, "at": at.isoformat(), "headers": {"trace": "1"}},
    )
    record = site.app.job(answer.json()["id"]).record()
    assert record.headers == b'{"trace":"1"}'
    assert record.due_ms == pytest.approx(at.timestamp() * 1000, abs=2_000)


def test_null_means_that_an_option_is_not_given(site: Served):
    names = ("id", "queue", "delay", "at", "expires", "priority", "key", "group")

    answer = site.submit("mail.send", arguments={"user_id": 1}, **dict.fromkeys(names))

    assert answer.status_code == 202


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delay": 60.25},
        {"at": (NOW + timedelta(days=400, microseconds=1_500)).isoformat()},
        {"at": "2020-01-01T00:00:00Z", "expires": 3600},
        {"at": "9999-12-31T23:59:59.999999Z"},
        {"delay": 1, "expires": 5.5, "priority": 8, "group": "g"},
    ],
)
def test_the_same_id_is_the_same_job(site: Served, options: dict[str, Any]):
    job = str(uuid.UUID(bytes=new_id(int(time.time() * 1000))))

    answers = [
        site.submit("mail.send", arguments={"user_id": 1}, id=job, **options) for _ in range(3)
    ]

    assert {each.headers["location"] for each in answers} == {f"/v1/jobs/{job}"}
    assert answers[0].json()["id"] == job
    assert answers[0].json() == answers[1].json() == answers[2].json()


def test_a_taken_key_answers_with_the_first_job(site: Served):
    taken = key()

    first = site.submit("mail.send", arguments={"user_id": 1}, key=taken)
    again = site.submit("mail.send", arguments={"user_id": 2}, key=taken)

    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]


# -- waiting --


def test_with_a_wait_the_result_comes_at_once(fresh: Served):
    def work() -> None:
        while not fresh.app.tasks or not _ready(fresh):
            time.sleep(0.01)
        succeed(fresh.app, "done", "mail")

    worker = threading.Thread(target=work)
    worker.start()
    answer = fresh.client.post(
        "/v1/tasks/mail.send/jobs",
        json={"arguments": {"user_id": 7}},
        headers={"Prefer": "respond-async, wait=10"},
    )
    worker.join()

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", "done")


def _ready(site: Served) -> int:
    engine = site.app.engine
    return sum(record.depth.ready for record in engine.run(engine.list_queues()))


def test_a_wait_that_comes_to_nothing_is_accepted_as_usual(site: Served):
    answer = site.submit(
        "mail.send", arguments={"user_id": 7}, headers={"Prefer": "respond-async; wait=1"}
    )

    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert "result" not in answer.json()


@pytest.mark.parametrize(
    "prefer", ["wait=x", "wait=-1", "wait", "return=minimal", "", "wait=" + "9" * 99]
)
def test_a_preference_that_says_nothing_is_ignored(site: Served, prefer: str):
    answer = site.submit("nothing", headers={"Prefer": prefer})

    assert answer.status_code == 202


# -- idempotency --


def test_an_idempotency_key_gives_the_same_answer_whatever_became_of_the_job(fresh: Served):
    sent = {"arguments": {"user_id": 7}}
    headers = {"Idempotency-Key": key()}

    first = fresh.submit("mail.send", headers=headers, **sent)
    succeed(fresh.app, "x", "mail")
    again = fresh.submit("mail.send", headers=headers, **sent)

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    assert again.json()["state"] == "succeeded"


def test_a_quoted_idempotency_key_is_the_same_as_a_bare_one(site: Served):
    name = key()

    bare = site.submit("nothing", headers={"Idempotency-Key": name})
    quoted = site.submit("nothing", headers={"Idempotency-Key": f'"{name}"'})

    assert bare.json()["id"] == quoted.json()["id"]


def test_an_idempotency_key_with_another_payload_is_refused(site: Served):
    headers = {"Idempotency-Key": key()}

    site.submit("mail.send", headers=headers, arguments={"user_id": 7})
    other = site.submit("mail.send", headers=headers, arguments={"user_id": 8})

    assert (other.status_code, kind(other)) == (422, "key-reused")


@pytest.mark.parametrize("bad", ["", '""', '" "', "x" * 256, "a\tb"])
def test_an_idempotency_key_that_is_none_is_refused(site: Served, bad: str):
    answer = site.submit("nothing", headers={"Idempotency-Key": bad})

    assert (answer.status_code, kind(answer)) == (400, "bad-idempotency-key")


# -- full --


def test_a_full_queue_tells_when_to_come_back(fresh: Served):
    for number in range(2):
        assert fresh.submit("tiny", arguments={"number": number}).status_code == 202
    full = fresh.submit("tiny", arguments={"number": 3})

    told = full.json()
    assert (full.status_code, kind(full)) == (503, "busy")
    assert (told["queue"], told["limit"], told["depth"], told["bound"]) == ("tiny", "jobs", 2, 2)
    assert told["retry_after"] is None
    assert told["basis"] == "unknown"
    assert full.headers["retry-after"] == "5"


def test_a_group_that_used_up_its_share_is_told_429(fresh: Served):
    for _ in range(2):
        assert fresh.submit("shared", group="acme").status_code == 202
    full = fresh.submit("shared", group="acme")
    other = fresh.submit("shared", group="else")

    assert (full.status_code, full.json()["limit"]) == (429, "group")
    assert other.status_code == 202


@pytest.mark.parametrize("ticket", [b"x", b"x" * 10_000, "ü".encode(), b"1.2.3"])
def test_a_ticket_that_is_none_opens_nothing_and_breaks_nothing(site: Served, ticket: bytes):
    answer = site.client.post("/v1/tasks/nothing/jobs", headers={b"Backlane-Ticket": ticket})

    assert answer.status_code == 202


# -- refused --


def test_an_unknown_task_is_told_with_the_nearest_name(site: Served):
    answer = site.submit("mail.sent", arguments={})

    assert (answer.status_code, kind(answer)) == (404, "unknown-task")
    assert "did you mean 'mail.send'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_a_body_that_does_not_say_it_is_json_is_refused(site: Served, content_type: str | None):
    headers = {} if content_type is None else {"Content-Type": content_type}

    answer = site.client.post("/v1/tasks/nothing/jobs", content=b"{}", headers=headers)

    assert (answer.status_code, kind(answer)) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"],
)
def test_json_by_any_of_its_names_is_taken(site: Served, content_type: str):
    headers = {"Content-Type": content_type}

    answer = site.client.post("/v1/tasks/nothing/jobs", content=b"{}", headers=headers)

    assert answer.status_code == 202


def test_all_arguments_that_do_not_fit_are_named(site: Served):
    answer = site.submit("ship", arguments={"order": {"number": "x"}, "prise": 1})

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")
    assert answer.json()["errors"] == [
        {"pointer": "/arguments/day", "detail": "is missing"},
        {"pointer": "/arguments/order/number", "detail": "expected int, got str"},
        {
            "pointer": "/arguments/prise",
            "detail": "there is no such argument (did you mean 'price'?)",
        },
    ]


def test_the_place_of_a_misfit_deep_inside_is_a_pointer(site: Served):
    lines = [{"street": "a", "zip": "1"}, {"street": "b", "zip": 2}]

    answer = site.submit(
        "ship", arguments={"order": {"number": 1, "lines": lines}, "day": "2026-01-01"}
    )

    assert [it["pointer"] for it in answer.json()["errors"]] == ["/arguments/order/lines/1/zip"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("id", "x"),
        ("id", str(uuid.UUID(int=5, version=4))),
        ("id", 7),
        ("queue", "none"),
        ("queue", "orders"),
        ("queue", ""),
        ("delay", -1),
        ("delay", 1e300),
        ("delay", "1"),
        ("at", "2026-01-01T00:00:00"),
        ("at", "tomorrow"),
        ("expires", -0.5),
        ("priority", 10),
        ("priority", 1.5),
        ("key", ""),
        ("key", "x" * 257),
        ("group", ["a"]),
        ("headers", {"a": 1}),
        ("headers", {"": "a"}),
        ("headers", {"a": "x" * 20_000}),
        ("no_such", 1),
    ],
)
def test_an_option_that_cannot_work_is_named(site: Served, option: str, value: object):
    answer = site.client.post("/v1/tasks/nothing/jobs", json={option: value})

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")
    pointers = [it["pointer"] for it in answer.json()["errors"]]
    assert pointers, answer.text
    assert all(it in ("", f"/{option}", f"/{option}/a") for it in pointers)


def test_a_delay_beyond_the_deadline_is_refused(site: Served):
    answer = site.submit("nothing", delay=10, expires=5)

    assert answer.status_code == 422


def test_arguments_above_the_limit_of_a_job_are_refused(site: Served):
    answer = site.submit("mail.send", arguments={"user_id": 1, "template": "x" * 100_001})

    assert (answer.status_code, kind(answer)) == (413, "too-large")


def test_nothing_that_was_refused_is_stored(fresh: Served):
    fresh.submit("mail.send", arguments={"user_id": "x"})
    fresh.submit("mail.send", arguments={"user_id": 1}, queue="none")
    fresh.submit("mail.send", headers={"Idempotency-Key": ""}, arguments={"user_id": 1})

    assert take(fresh.app, "mail") == []


# Another process: SQLite's locks are the process's, and two libraries in one share them.
HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("begin immediate")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_store_that_is_locked_is_told_with_a_time_to_come_back(
    fresh: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backlane.engine.sqlite.store.connection.WAIT_SECONDS", 0.3)
    fresh.submit("nothing")
    command = [sys.executable, "-c", HOLD, fresh.app.url.removeprefix("sqlite:///")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = fresh.submit("nothing")
        holder.communicate("", timeout=20)

    assert (refused.status_code, kind(refused)) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"
    assert fresh.submit("nothing").status_code == 202
