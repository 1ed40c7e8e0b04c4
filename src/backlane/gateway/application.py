"""The application: the routes put together, and one place where every request ends.

Submissions are the hot path and pass no router; all else is found by Starlette's. What an
endpoint raises is answered here, so that each of them reads as if nothing could go wrong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from starlette.routing import Route, Router

from backlane.app import Backlane
from backlane.errors import BadOption
from backlane.gateway import (
    auth,
    health,
    jobs,
    limits,
    messages,
    metrics,
    openapi,
    queues,
    schedules,
    stream,
    tasks,
    workflows,
)
from backlane.gateway.answer import tell
from backlane.gateway.body import Cut, Gone, cut, whole
from backlane.gateway.declined import decline, problem_of
from backlane.gateway.site import (
    ANY,
    DEFAULT_MAX_BODY,
    Exchange,
    Limits,
    Receive,
    Reply,
    Rule,
    Scope,
    Send,
    Site,
    headers_of,
)
from backlane.gateway.tokens import ANYONE, Token, Tokens
from backlane.problem import problem

# Each module says itself what it does, and what scope that takes.
RULES: Sequence[Rule] = [
    *tasks.ROUTES,
    *jobs.ROUTES,
    *workflows.ROUTES,
    *queues.ROUTES,
    *limits.ROUTES,
    *schedules.ROUTES,
    *messages.ROUTES,
    *stream.ROUTES,
    *metrics.ROUTES,
    *health.ROUTES,
]
RULES = [*RULES, openapi.rule_of(RULES)]

_SUBMIT = tasks.ROUTES[0]
_BEFORE, _AFTER = _SUBMIT.path.split("{task}")
_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})


def gateway(
    app: Backlane,
    *,
    tokens: str | os.PathLike[str] | None = None,
    max_body: int = DEFAULT_MAX_BODY,
    public: bool = False,
) -> Gateway:
    """Return an ASGI application that serves an application's tasks and queues.

    Args:
        app: whose tasks and queues.
        tokens: the file of `backlane token add`. Without one, only callers of this machine
            are let in.
        max_body: the most bytes of a request's body.
        public: let callers of other machines in without tokens, because something in front
            of the gateway checks them.

    Raises:
        BadOption: a value cannot work.
    """
    if not isinstance(app, Backlane):
        raise BadOption(f"{app!r} is no application; pass a Backlane")
    if type(max_body) is not int or max_body < 1:
        raise BadOption(f"max_body is {max_body!r}; use a whole number from 1")
    return Gateway(
        Site(
            app=app,
            tokens=None if tokens is None else Tokens(Path(tokens)),
            limits=Limits(max_body=max_body),
            is_public=public,
        )
    )


class Gateway:
    """An ASGI application over one `Site`; make it with `gateway(app)`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        by_path: dict[str, dict[str, Rule]] = {}
        for rule in RULES:
            by_path.setdefault(rule.path, {})[rule.method] = rule
        paths = {path: _Path(site, rules) for path, rules in by_path.items()}
        self._submit = paths[_SUBMIT.path]
        routes = [Route(path, asgi) for path, asgi in paths.items()]
        self._router = Router(routes, redirect_slashes=False, default=_unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._visited(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case _:  # a web socket: nothing here speaks it
                await receive()
                await send({"type": "websocket.close", "code": 1000, "reason": ""})

    def stop(self) -> None:
        """End streams and long polls, so that the server can end; new ones end at once."""
        self.site.stopping.set()
        self.site.hub.stop()

    async def _visited(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        prefix: str = scope.get("root_path", "")
        if prefix and path.startswith(prefix):
            path = path[len(prefix) :]
        if path.startswith(_BEFORE) and path.endswith(_AFTER) and scope["method"] == "POST":
            name = path[len(_BEFORE) : -len(_AFTER)]
            if "/" not in name:
                scope["path_params"] = {"task": name}
                await self._submit(scope, receive, send)
                return
        await self._router(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self.stop()
                await self.site.app.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _told(receive: Receive, send: Send, error: Exception) -> int:
    """Answer with what an error means; return the status."""
    if isinstance(error, Cut):
        await cut(receive, send, error.problem)
        return error.problem.status
    problem = problem_of(error)
    await tell(send, problem)
    return problem.status


class _Path:
    """The rules of one path, by method."""

    def __init__(self, site: Site, rules: Mapping[str, Rule]) -> None:
        self._site = site
        self._rules = rules
        self._path = next(iter(rules.values())).path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        method: str = scope["method"]
        rule = self._rules.get("GET" if method == "HEAD" else method)
        try:
            if rule is None:
                _decline_method(self._rules)
            response = await _answered(self._site, rule, scope, receive)
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 - the caller is told what it means
            status = await _told(receive, send, error)
        else:
            status = response.status_code
            await response(scope, receive, send)
        seconds = time.perf_counter() - began
        self._site.tally.answered(method, self._path, status, seconds)


async def _answered(site: Site, rule: Rule, scope: Scope, receive: Receive) -> Reply:
    headers = headers_of(scope)
    caller = ANYONE if rule.scope is None else auth.caller_of(site, scope, headers)
    _check(caller, rule, scope)
    body = b""
    if rule.method in _WITH_BODY:
        body = await whole(headers, receive, site.limits)
    return await rule.endpoint(Exchange(site, caller, scope, receive, headers, body))


def _check(caller: Token, rule: Rule, scope: Scope) -> None:
    if rule.scope is None or rule.scope == ANY:
        return
    queue = scope["path_params"].get("queue")
    if queue is None:
        auth.check_any(caller, rule.scope)  # the endpoint sees whose job it is, and asks again
    else:
        auth.check(caller, rule.scope, (queue,))


def _decline_method(rules: Mapping[str, object]) -> NoReturn:
    allowed = sorted({*rules, *(["HEAD"] if "GET" in rules else [])})
    decline(
        405,
        "method-not-allowed",
        "Not by this method",
        f"this takes {', '.join(allowed)}",
        (("Allow", ", ".join(allowed)),),
    )


async def _unknown(scope: Scope, _receive: Receive, send: Send) -> None:
    path = scope["path"][:200]
    told = problem(
        404, "unknown-path", "There is nothing here", f"no path {path!r}; see /openapi.json"
    )
    await tell(send, told)
