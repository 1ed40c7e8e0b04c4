"""Servers of the benchmarks: private, durable, on the disk that is measured."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import postgres, rabbitmq, redis

# As in the study of the peers that the bars come from.
POSTGRES = {"shared_buffers": "1GB", "max_wal_size": "8GB"}


@contextlib.contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL with synchronous_commit on; yield its URL."""
    with _on(directory), postgres.started(**POSTGRES) as server:
        yield server.url


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a Redis with AOF everysec; yield its URL."""
    with _on(directory), redis.started() as server:
        yield server.url


@contextlib.contextmanager
def rabbitmq_server(directory: Path) -> Iterator[str]:
    """Run a RabbitMQ of one node; yield its URL."""
    with _on(directory), rabbitmq.started_url() as url:
        yield url


@contextlib.contextmanager
def _on(directory: Path) -> Iterator[None]:
    """Let temporary folders lie in a directory: elsewhere may be memory."""
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    directory.chmod(0o755)  # a server that runs as another user passes through
    try:
        yield
    finally:
        tempfile.tempdir = before
