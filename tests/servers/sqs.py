"""SQS: moto's server as a process of its own; a test gets a prefix.

`BACKLANE_TEST_SQS_URL` names another endpoint to use instead (`sqs://eu-central-1`, or
`sqs+https://host/region`), with credentials from the environment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.missing import Missing
from tests.servers.process import Process, folder_of, free_port, listens

ASKED = "BACKLANE_TEST_SQS_URL"
INSTALL = "pip install boto3 moto flask flask-cors"
PROGRAM = Path(__file__).with_name("sqs_endpoint.py")
REGION = "us-east-1"

_numbers = itertools.count(1)


def prefix() -> str:
    """Return a prefix of queues that no test had before."""
    return f"t{os.getpid()}-{time.time_ns() // 1_000_000 % 10**8}-{next(_numbers)}"


class SqsServer:
    """An endpoint of our own, which can be ended, killed and started again (empty)."""

    def __init__(self) -> None:
        if any(importlib.util.find_spec(it) is None for it in ("boto3", "moto", "flask_cors")):
            raise Missing(INSTALL)
        self.port = free_port()
        self.process = Process(
            command=[sys.executable, str(PROGRAM), str(self.port)],
            folder=folder_of(None, "sqs"),
            ready=lambda: listens(self.port),
        )

    @property
    def url(self) -> str:
        return f"sqs+http://key:secret@127.0.0.1:{self.port}/{REGION}"

    def start(self) -> None:
        self.process.start()


@contextlib.contextmanager
def started() -> Iterator[SqsServer]:
    """Run an endpoint for as long as a block lasts."""
    server = SqsServer()
    try:
        server.start()
        yield server
    finally:
        server.process.remove()


@cache
def newest() -> str:
    """The URL of the endpoint that the tests use."""
    asked = os.environ.get(ASKED)
    if asked:
        return asked
    server = SqsServer()
    server.start()
    return server.url


def client(url: str) -> Any:
    """A plain client of boto3, to look behind what is tested."""
    import boto3

    parts = urlsplit(url)
    if parts.scheme == "sqs":
        return boto3.session.Session().client("sqs", region_name=parts.netloc)
    return boto3.session.Session().client(
        "sqs",
        region_name=parts.path.strip("/"),
        endpoint_url=f"{parts.scheme.removeprefix('sqs+')}://{parts.hostname}:{parts.port}",
        aws_access_key_id=parts.username,
        aws_secret_access_key=parts.password,
    )
