"""What only a hostile caller sends: fields behind the body, requests behind requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.gateway.conftest import shop
from tests.gateway.served import Served, problem, served, status

from backlane.gateway import tokens

HEAD = (
    b"POST /v1/tasks/nothing/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Transfer-Encoding: chunked\r\n"
)
JSON = b"Content-Type: application/json\r\n"


def soon(is_so: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


# -- trailers --


def test_a_trailer_is_no_header(site: Served):
    body = b"2\r\n{}\r\n0\r\n"

    trailed = site.raw(HEAD + b"\r\n" + body + JSON + b"\r\n")
    headed = site.raw(HEAD + JSON + b"\r\n" + body + b"Content-Type: text/plain\r\n\r\n")

    assert status(trailed) == 415
    assert status(headed) == 202


def test_a_trailer_opens_nothing(tmp_path: Path):
    file = tmp_path / "tokens.toml"
    secret = tokens.add(file, "shop", ["submit"])
    trailer = b"Authorization: Bearer " + secret.encode() + b"\r\n\r\n"
    with shop(tmp_path / "jobs.db") as app, served(app, tokens=file) as site:
        answer = site.raw(HEAD + JSON + b"\r\n2\r\n{}\r\n0\r\n" + trailer)

    assert status(answer) == 401


@pytest.mark.parametrize("part", [b"X-Field: value\r\n" * 1_000, b"x" * 16_000])
def test_trailers_without_end_are_cut_off(site: Served, part: bytes):
    sent = 0
    with site.connect() as connection:
        connection.sendall(HEAD + JSON + b"\r\n0\r\n")
        with suppress(ConnectionError):
            while sent < 100_000_000:
                connection.sendall(part)
                sent += len(part)

    assert sent < 20_000_000  # what the sockets of both sides hold


# -- pipelining --


def test_who_leaves_with_requests_in_line_is_forgotten(fresh: Served):
    job = fresh.submit("nothing", delay=3600).json()["id"]
    stream = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    for _ in range(20):
        with fresh.connect() as connection:
            connection.sendall(stream * 3)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")

    assert soon(lambda: len(fresh.gateway.site.hub) == 0)


def test_requests_in_line_are_answered_in_order(site: Served):
    paths = [b"/healthz", b"/v1/queues", b"/nowhere", b"/healthz"]
    ask = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths[:-1])
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    answers = site.raw(ask + last)

    found = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 200, 404, 200]


@pytest.mark.parametrize("waits", [0.0, 0.3])
def test_a_message_taken_for_who_has_left_is_given_back(fresh: Served, waits: float):
    ask = b"POST /v1/queues/orders/receive?lease=3600&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with fresh.connect() as connection:
        connection.sendall(ask)
        time.sleep(waits)
    fresh.client.post("/v1/queues/orders/messages", content=b"one")

    found = fresh.client.post("/v1/queues/orders/receive?wait=10").json()["messages"]

    assert len(found) == 1


# -- headers --


@pytest.mark.parametrize("name", ["Host", "Origin"])
@pytest.mark.parametrize("value", ["http://[", "[", "[::1", "[v1.x]", "//[]", "http://[::1]x"])
def test_an_address_that_is_none_is_refused(site: Served, name: str, value: str):
    host = f"Host: {value}" if name == "Host" else f"Host: localhost\r\nOrigin: {value}"

    answer = site.raw(f"GET /v1/queues HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n".encode())

    assert status(answer) == 403


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Idempotency-Key", "Origin"])
def test_of_what_is_said_once_there_is_one(site: Served, name: str):
    fields = f"{name}: one\r\n{name}: two\r\n".encode()
    head = b"POST /v1/tasks/nothing/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"

    answer = site.raw(head + fields + b"Content-Length: 0\r\n\r\n")

    assert status(answer) == 400
    assert problem(answer)["type"] == "urn:backlane:bad-request"


def test_preferences_may_come_on_lines_of_their_own(site: Served):
    head = b"POST /v1/tasks/nothing/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    fields = b"Prefer: wait=0\r\nPrefer: respond-async\r\nPrefer: handling=strict\r\n"

    answer = site.raw(head + fields + b"Content-Length: 0\r\n\r\n")

    assert status(answer) == 202
    assert b"preference-applied: respond-async" in answer


# -- what is somebody else's --


def test_the_id_of_another_tasks_job_shows_nothing_of_it(tmp_path: Path):
    file = tmp_path / "tokens.toml"
    everything = tokens.add(file, "boss", ["submit"])
    narrow = tokens.add(file, "shop", ["submit:nothing"])
    with shop(tmp_path / "jobs.db") as app, served(app, tokens=file) as site:
        theirs = {"Authorization": f"Bearer {everything}"}
        ours = {"Authorization": f"Bearer {narrow}"}
        arguments = {"user_id": 1}
        job = site.submit("mail.send", arguments=arguments, key="one", headers=theirs).json()["id"]

        answer = site.submit("nothing", id=job, headers=ours)
        waited = site.submit("nothing", id=job, headers={**ours, "Prefer": "wait=1"})
        boss = site.submit("nothing", id=job, headers=theirs)

    for each in (answer, waited, boss):
        assert each.status_code == 409
        assert each.json()["type"] == "urn:backlane:duplicate"
        assert "mail" not in each.text
