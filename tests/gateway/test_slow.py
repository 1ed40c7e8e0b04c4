"""Too much, too slow, too many: what one caller may take from the others."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway.conftest import shop
from tests.gateway.served import PATIENCE, Served, passed, problem, read_all, served, status
from tests.hand import succeed

from backlane.gateway.site import Limits

LINE = b"POST /v1/tasks/nothing/jobs HTTP/1.1\r\nHost: localhost\r\n"
HEAD = LINE + b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that waits for half a second, and reads bodies of up to 1,000 bytes."""
    limits = Limits(max_body=1_000, body_seconds=0.6)
    path = tmp_path_factory.mktemp("strict") / "jobs.db"
    with shop(path) as app, served(app, limits=limits, head_seconds=0.6) as made:
        yield made


def trickle(connection: socket.socket, sent: bytes, seconds: float = 8.0) -> bytes:
    """Send a byte every 50 ms, for as long as somebody reads; return what was answered."""
    ends = time.monotonic() + seconds
    connection.settimeout(0.05)
    for byte in sent * 1_000:
        assert time.monotonic() < ends, "it is read for ever"
        try:
            connection.sendall(bytes([byte]))
            found = connection.recv(65_536)
        except TimeoutError:
            continue
        except OSError:
            return b""
        connection.settimeout(5)
        return found + read_all(connection)
    return b""


# -- slow --


def test_a_head_that_trickles_is_cut_off(strict: Served):
    with strict.connect() as connection:
        connection.sendall(LINE)
        began = time.monotonic()
        answer = trickle(connection, b"X-A: x\r\n")

    assert (status(answer), problem(answer)["type"]) == (408, "urn:backlane:too-slow")
    assert passed(0.5, began)


def test_a_connection_that_says_nothing_is_cut_off(strict: Served):
    with strict.connect() as connection:
        answer = read_all(connection)

    assert status(answer) == 408


def test_a_second_request_that_trickles_is_cut_off_too(strict: Served):
    with strict.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        assert status(connection.recv(65_536)) == 202
        connection.sendall(LINE)
        answer = trickle(connection, b"X-A: x\r\n")

    assert status(answer) == 408


def test_a_body_that_trickles_is_cut_off(strict: Served):
    with strict.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n")
        began = time.monotonic()
        answer = trickle(connection, b" ")

    assert (status(answer), problem(answer)["type"]) == (408, "urn:backlane:too-slow")
    assert b"connection: close" in answer.lower()
    assert passed(0.5, began)


def test_chunks_that_trickle_are_cut_off(strict: Served):
    with strict.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = trickle(connection, b"1\r\n \r\n")

    assert status(answer) == 408


def test_a_caller_who_leaves_in_the_middle_harms_nobody(strict: Served):
    for sent in (LINE[:20], HEAD, HEAD + b"Content-Length: 900\r\n\r\n{"):
        with strict.connect() as connection:
            connection.sendall(sent)

    assert strict.submit("nothing").status_code == 202


# -- large --


def test_a_body_that_is_announced_too_large_is_not_read(strict: Served):
    with strict.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        answer = read_all(connection)

    assert (status(answer), problem(answer)["type"]) == (413, "urn:backlane:too-large")
    assert problem(answer)["max_body"] == 1_000


def test_a_body_that_grows_too_large_is_cut_off(strict: Served):
    chunk = b"100\r\n" + b" " * 256 + b"\r\n"
    with strict.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4)
        answer = read_all(connection)

    assert status(answer) == 413


def test_who_sends_it_all_before_reading_still_gets_the_answer(strict: Served):
    """A connection closed with bytes unread is reset, which throws the answer away."""
    size = 5_000_000
    answer = strict.client.post(
        "/v1/tasks/nothing/jobs",
        content=b" " * size,
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 413


def test_a_body_of_the_largest_size_is_read(strict: Served):
    body = b'{"arguments": {}}'.ljust(1_000)

    answer = strict.client.post(
        "/v1/tasks/nothing/jobs", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 202


@pytest.mark.parametrize(
    "sent", [b"X-A: x\r\n" * 20_000, b"X" * 200_000, b"X-A: " + b"x" * 200_000]
)
def test_a_head_that_never_ends_is_cut_off(strict: Served, sent: bytes):
    with strict.connect() as connection:
        try:
            connection.sendall(LINE + sent)
            answer = read_all(connection)
        except OSError:  # it was closed while we still sent
            return

    assert answer == b"" or 400 <= status(answer) < 500


def test_a_request_in_two_parts_is_one_request(strict: Served):
    body = b'{"arguments": {}}'
    with strict.connect() as connection:
        for part in (HEAD[:30], HEAD[30:] + b"Content-Length: 17\r\n\r\n", body[:5], body[5:]):
            connection.sendall(part)
            time.sleep(0.05)
        answer = connection.recv(65_536)

    assert status(answer) == 202


def test_requests_one_behind_the_other_are_answered_in_order(strict: Served):
    with strict.connect() as connection:
        connection.sendall((HEAD + b"Content-Length: 0\r\n\r\n") * 3 + LINE + b"\r\n")
        found = b""
        while found.count(b"HTTP/1.1 202") < 4:
            part = connection.recv(65_536)
            assert part, found
            found += part


# -- many --


def test_one_connection_too_many_is_told_to_come_again(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app, served(app, room=3) as site:
        held = [site.connect() for _ in range(4)]
        try:
            time.sleep(0.1)
            answer = site.raw(HEAD + b"Content-Length: 0\r\n\r\n")
        finally:
            for connection in held:
                connection.close()
        ends = time.monotonic() + 10
        while site.submit("nothing").status_code != 202:
            assert time.monotonic() < ends

    assert (status(answer), problem(answer)["type"]) == (503, "urn:backlane:too-many-connections")
    assert b"retry-after: 1" in answer.lower()


def test_who_does_not_read_an_answer_is_cut_off(tmp_path: Path):
    with shop(tmp_path / "jobs.db") as app, served(app, write_seconds=1.0) as site:
        job = site.submit("large").headers["location"]
        succeed(app, "x" * 90_000)
        asked = b"GET %s/result HTTP/1.1\r\nHost: localhost\r\n\r\n" % job.encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", site.port))
            connection.settimeout(PATIENCE)
            for _ in range(200):  # far more than the buffers of the system take
                connection.sendall(asked)
            _wait(lambda: _is_held_up(site))
            _wait(lambda: not _is_held_up(site))

        assert site.submit("nothing").status_code == 202


def _is_held_up(site: Served) -> bool:
    """Say whether the gateway has a connection that it cannot write to."""
    connections = list(site.server.server_state.connections)
    return any(connection.flow.write_paused for connection in connections)


def _wait(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)
