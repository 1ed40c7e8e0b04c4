"""Flask: an extension that answers refusals, and runs tasks within the application.

backlane = BacklaneFlask()
jobs = Backlane("sqlite:///jobs.db", middleware=[backlane.middleware])

def create_app() -> Flask:
    app = Flask(__name__)
    backlane.init_app(app, jobs)
    return app
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from flask import Flask, Response, current_app, g, request

from backlane.app import Backlane
from backlane.errors import JobNotFound, QueueFull, WrongUse
from backlane.middleware import Call, Middleware, Next
from backlane.problem import TICKET_HEADER, Problem, busy, problem
from backlane.visit import showing

NAME = "backlane"  # in `app.extensions`


class BacklaneFlask:
    """The extension.

    A worker imports the module with the tasks and serves no requests, so nothing there
    may have called `init_app`: give `create`, and the first task makes the application.

    Args:
        create: makes the Flask application where none was initialised.

    .. versionadded:: 0.1
    """

    def __init__(self, create: Callable[[], Flask] | None = None) -> None:
        self._create = create
        self._flask: Flask | None = None
        self._lock = threading.RLock()  # `create` calls init_app

    @property
    def middleware(self) -> Middleware:
        """What runs tasks within an application context; give it to `Backlane(...)`."""
        return Middleware(attempt=self._attempt)

    @property
    def app(self) -> Backlane:
        """The `Backlane` of the current Flask application.

        Raises:
            WrongUse: the Flask application was not initialised.
        """
        found = current_app.extensions.get(NAME)
        if not isinstance(found, Backlane):
            raise WrongUse("this Flask application knows no Backlane; call init_app(flask, app)")
        return found

    def init_app(self, flask: Flask, app: Backlane) -> None:
        """Answer what `app` refuses within `flask` as problem documents.

        `QueueFull` becomes 503 (429 for the share of a group) with `Retry-After` and a
        ticket; a request that brings the ticket back has it used by what it enqueues.
        `JobNotFound` becomes 404.
        """
        flask.extensions[NAME] = app
        flask.before_request(_show_ticket)
        flask.teardown_request(_hide_ticket)
        flask.register_error_handler(QueueFull, _tell_full)
        flask.register_error_handler(JobNotFound, _tell_missing)
        self._flask = flask

    async def _attempt(self, call: Call, following: Next) -> object:
        with self._bound().app_context():
            return await following(call)

    def _bound(self) -> Flask:
        with self._lock:  # tasks of many threads may be the first
            if self._flask is None and self._create is not None:
                self._flask = self._create()
        if self._flask is None:
            raise WrongUse(
                "a task is to run within a Flask application, and none was initialised in this "
                "process; use BacklaneFlask(create=create_app), so that a worker can make it"
            )
        return self._flask


def _show_ticket() -> None:
    stack = ExitStack()
    stack.enter_context(showing(request.headers.get(TICKET_HEADER)))
    g.backlane_shown = stack


def _hide_ticket(_: BaseException | None) -> None:
    stack: Any = g.pop("backlane_shown", None)
    if stack is not None:
        stack.close()


def _tell_full(full: QueueFull) -> Response:
    return _response(busy(full))


def _tell_missing(error: JobNotFound) -> Response:
    return _response(problem(404, "unknown-job", "There is no such job", str(error)))


def _response(told: Problem) -> Response:
    return Response(told.body, told.status, list(told.headers))
