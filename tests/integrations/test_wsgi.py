"""WSGI: a full queue is answered until the response has begun."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import ClassVar

import httpx2
import pytest
from tests.serving import served_wsgi

from backlane import QueueFull
from backlane.integrations.wsgi import BusyMiddleware
from backlane.visit import shown


class Parts:
    """A response that is made part by part, and knows whether it was closed."""

    closed: ClassVar[list[str]] = []

    def __init__(self, name: str, *parts: bytes | Exception) -> None:
        self.name, self.parts = name, parts

    def __iter__(self):
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed.append(self.name)


def full() -> QueueFull:
    after = timedelta(seconds=3)
    return QueueFull("mail", limit="jobs", depth=1, bound=1, ticket="signed", retry_after=after)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/refused":
        raise full()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/announced":
        return Parts(path, full())
    if path == "/begun":
        return Parts(path, b"begun", full())
    if path == "/parts":
        return Parts(path, b"a", b"", b"b")
    if path == "/nothing":
        return Parts(path)
    return [repr(shown.get()).encode()]


@pytest.fixture(scope="module")
def web():
    with (
        served_wsgi(BusyMiddleware(application)) as address,
        httpx2.Client(base_url=address) as http,
    ):
        yield http


@pytest.mark.parametrize("path", ["/refused", "/announced"])
def test_a_refusal_is_answered_until_the_response_has_begun(web, path):
    answer = web.get(path)

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"
    assert answer.headers["Backlane-Ticket"] == "signed"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_response_that_has_begun_is_not_answered_twice(web):
    with pytest.raises(httpx2.RemoteProtocolError):
        web.get("/begun")


@pytest.mark.parametrize(("path", "text"), [("/parts", "ab"), ("/nothing", "")])
def test_other_responses_pass_unchanged(web, path, text):
    assert web.get(path).text == text


@pytest.mark.parametrize("path", ["/announced", "/parts"])
def test_responses_are_closed(web, path):
    before = Parts.closed.count(path)

    web.get(path)
    ends = time.monotonic() + 5
    while Parts.closed.count(path) == before and time.monotonic() < ends:
        time.sleep(0.01)  # the server closes behind the last byte

    assert Parts.closed.count(path) > before


def test_a_ticket_is_shown_to_what_runs_within_its_request_and_to_nothing_else(web):
    with_one = web.get("/ticket", headers={"Backlane-Ticket": "mine"})
    without = web.get("/ticket")

    assert (with_one.text, without.text) == ("'mine'", "None")
