"""Runs every Python block of the documentation as a test; settles what all tests share.

The blocks of one page run in order, as one module in a directory of its own that is
the current directory meanwhile, so that `sqlite:///jobs.db` is a fresh file. What a page
names as `postgresql://…` is an empty database of its own (migrated), `redis://…` a server
of its own, with whatever stands behind the question mark. `await`
may stand outside a function, as in the documents: a page has one event loop. A block
behind `<!-- skip: next -->` is only shown.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import sys
import tempfile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from tests.servers.missing import Missing, give_up, missing

from backlane import Backlane

# A busy machine is no fault of a property: time is judged by the benchmarks alone.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")

PAGES = ["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/**/*.md"]
MODULE = "shop"  # what the pages call the application's module


class Servers:
    """The real servers behind what a page names as such."""

    NAMED = re.compile(r"(postgresql(?:\+psycopg)?|redis)://[^\s\"'?]+")

    def __init__(self) -> None:
        self.held = contextlib.ExitStack()
        self.places: dict[str, str] = {}

    def found(self, block: str) -> str:
        """Return a block that names servers which are there."""
        return self.NAMED.sub(lambda url: f"{url[1]}://{self.place(url[1][:5])}", block)

    def place(self, kind: str) -> str:
        """Return user, host, port and database of this page, started when first named."""
        from tests.servers import postgres, redis  # not every page needs them

        if kind not in self.places:
            start = postgres.database if kind == "postg" else redis.started_url
            try:
                url = self.held.enter_context(start())
            except Missing as why:
                give_up(f"pages that name {kind}", why)
            self.places[kind] = url.partition("://")[2]
        return self.places[kind]

    def close(self) -> None:
        self.held.close()


class Page:
    """What the blocks of one page share: a module, an event loop, a directory."""

    def __init__(self) -> None:
        self.module = ModuleType(MODULE)
        self.runner = asyncio.Runner()
        # A bell may still be rung there while it is removed.
        self.directory = tempfile.TemporaryDirectory("backlane-docs", ignore_cleanup_errors=True)
        self.before = Path.cwd()
        self.applications: list[Backlane] = []
        self.servers = Servers()

    def open(self) -> None:
        sys.modules[MODULE] = self.module  # dataclasses and annotations look names up there
        os.chdir(self.directory.name)

    def run(self, code: CodeType) -> None:
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(FunctionType(code, self.module.__dict__)())
        else:
            exec(code, self.module.__dict__)  # noqa: S102 - the project's own pages
        # Kept, because a later block may give the name to another.
        values = self.module.__dict__.values()
        self.applications += [value for value in values if isinstance(value, Backlane)]

    def close(self) -> None:
        for application in self.applications:
            application.close()
        self.runner.close()
        self.servers.close()
        os.chdir(self.before)
        del sys.modules[MODULE]
        self.directory.cleanup()


def open_page(namespace: dict[str, Any]) -> None:
    namespace["page"] = Page()
    namespace["page"].open()


def close_page(namespace: dict[str, Any]) -> None:
    namespace.pop("page").close()


def evaluate(example: Example) -> None:
    """Run one block, with the line numbers of its page in tracebacks."""
    lines_before = example.line + example.parsed.line_offset
    page: Page = example.namespace["page"]
    code = compile(
        "\n" * lines_before + page.servers.found(example.parsed),
        example.path,
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    page.run(code)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Those of schemathesis share one id, and several processes run what has one id once.
        if item.name.endswith("]") and not item.nodeid.endswith("]") and item.parent is not None:
            item._id = type(item.id).parse(f"{item.parent.nodeid}::{item.name}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Deal files out to processes by what they do, where they are dealt out at all."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.sharing import Sharing  # there may be no xdist

    return Sharing(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several test processes could not try."""
    missing.update(getattr(node, "workeroutput", {}).get("missing", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["missing"] = dict(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, why in sorted(missing.items()):
        terminalreporter.write_line(f"not tested: {name} ({why})", yellow=True)


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", evaluate), SkipParser()],
    patterns=PAGES,
    setup=open_page,
    teardown=close_page,
).pytest()
