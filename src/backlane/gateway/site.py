"""The site: what all requests of one gateway share, and one request as endpoints see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from starlette.datastructures import QueryParams

from backlane.app import Backlane
from backlane.enqueuer import Enqueuer
from backlane.gateway.declined import decline, misfit
from backlane.gateway.hub import Hub
from backlane.gateway.readiness import Readiness
from backlane.gateway.speed import Speeds
from backlane.gateway.tally import Tally
from backlane.gateway.tokens import Token, Tokens

Scope = MutableMapping[str, Any]  # of ASGI
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = Mapping[bytes, bytes]  # names in lower case
Send = Callable[[Message], Awaitable[None]]

DEFAULT_MAX_BODY = 2 * 1024 * 1024  # bytes: a job of the usual limit, and what is around it
BODY_SECONDS = 20.0  # for the whole body of a request: 100 KiB/s at the limit
LONGEST_SECONDS = 3_155_760_000  # 100 years: no delay is longer
WAIT_SECONDS = 60.0  # the longest a request may ask to be kept waiting


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may take; `body_seconds` is None where the server itself looks to it."""

    max_body: int = DEFAULT_MAX_BODY
    body_seconds: float | None = BODY_SECONDS


@dataclass(slots=True, kw_only=True)
class Site:
    """What all requests of one gateway share.

    `tokens` is None where anybody may do anything: then only this machine may call, unless
    the site `is_public`. `is_served` says that no other application is in front of it.
    """

    app: Backlane
    tokens: Tokens | None = None
    limits: Limits = field(default_factory=Limits)
    is_public: bool = False
    is_served: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # streams and waits end
    secret: bytes | None = None  # the store's own, once it was read
    enqueuers: dict[str, Enqueuer[..., Any]] = field(default_factory=dict)  # by task
    documents: dict[object, bytes] = field(default_factory=dict)  # of OpenAPI, made once each
    tally: Tally = field(default_factory=Tally)
    readiness: Readiness = field(default_factory=Readiness)
    hub: Hub = field(init=False)
    speeds: Speeds = field(init=False)

    def __post_init__(self) -> None:
        self.hub = Hub(lambda: self.app.engine)
        self.speeds = Speeds(lambda: self.app.engine, lambda: self.app.clock)
        self.app.observe(self.tally.saw)


@dataclass(slots=True)
class Exchange:
    """One request, behind the door: whose it is, what it says, how to read its body."""

    site: Site
    caller: Token
    scope: Scope
    receive: Receive
    headers: Headers
    body: bytes = b""  # read in whole before the endpoint runs

    @property
    def app(self) -> Backlane:
        return self.site.app

    def param(self, name: str) -> str:
        """Return a part of the path."""
        value: str = self.scope["path_params"][name]
        return value

    def header(self, name: bytes) -> str | None:
        """Return a request header by its name in lower case."""
        return text(self.headers, name)

    @property
    def query(self) -> QueryParams:
        return QueryParams(self.scope["query_string"])

    def number(self, name: str, default: float, most: float) -> float:
        """Return a number of the query, at most `most`.

        Raises:
            Declined: it is no number from 0.
        """
        given = self.query.get(name)
        if given is None:
            return default
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not value >= 0:  # NaN too
            raise misfit(f"{name} is {given!r:.50}; use a number from 0", (f"/{name}", "no number"))
        return min(value, most)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number of the query.

        Raises:
            Declined: it is none within these bounds.
        """
        given = self.query.get(name)
        if given is None:
            return default
        is_number = given.isascii() and given.isdecimal() and len(given) <= 9
        if not (is_number and least <= int(given) <= most):
            why = f"{name} is {given!r:.50}; use a whole number from {least} to {most}"
            raise misfit(why, (f"/{name}", why))
        return int(given)

    def place(self, path: str) -> str:
        """Return the path of something of this site as the caller must ask for it."""
        return root(self.scope) + path


class Reply(Protocol):
    """What an endpoint answers with: any response of Starlette, or one like it."""

    status_code: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...


Endpoint = Callable[[Exchange], Awaitable[Reply]]


class Rule(msgspec.Struct, frozen=True):
    """One thing the gateway does: the method and path it is asked by, and the scope it takes.

    A scope of None takes no token at all, `ANY` takes any. Where the path names a `task` or
    a `queue`, a scope narrowed to it will do; an endpoint that finds out later whose a job
    is asks `auth.require` itself.
    """

    method: str
    path: str
    endpoint: Endpoint
    scope: str | None


ANY = "any"


# Two of these could be read as either one, by us and by a proxy that checked them.
_SINGLE = frozenset(
    {
        b"authorization",
        b"backlane-ticket",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"sec-fetch-site",
    }
)


def headers_of(scope: Scope) -> Headers:
    """Return the headers of a request; of several alike the last, `Prefer` put together.

    Raises:
        Declined: 400, one that can be there but once is there twice.
    """
    given: Sequence[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(given)
    if len(headers) == len(given):
        return headers
    seen: set[bytes] = set()
    for name, _ in given:
        if name in seen and name in _SINGLE:
            told = f"the header {name.decode()} is given twice"
            decline(400, "bad-request", "The request is ambiguous", told)
        seen.add(name)
    if b"prefer" in headers:
        headers[b"prefer"] = b", ".join(value for name, value in given if name == b"prefer")
    return headers


def text(headers: Headers, name: bytes) -> str | None:
    """Return a request header by its name in lower case."""
    found = headers.get(name)
    return None if found is None else found.decode("latin-1")


def root(scope: Scope) -> str:
    """Return the path under which the gateway is mounted, as it stands in a URL."""
    path: str = scope.get("root_path", "")
    return quote(path) if path else path
