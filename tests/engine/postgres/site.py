"""A site: Django in this process, on whatever database a test has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connections


@contextlib.contextmanager
def django_on(url: str, other: Path) -> Iterator[None]:
    """Let "default" be the database of `url`, and "other" one of SQLite."""
    at = urlsplit(url)
    known: dict[str, dict[str, Any]] = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": at.path[1:],
            "USER": at.username,
            "HOST": at.hostname,
            "PORT": at.port,
        },
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(other)},
    }
    if not settings.configured:
        settings.configure(DATABASES=known)
        django.setup()
    for alias, database in known.items():  # it is configured once for a process
        connections.settings.setdefault(alias, {}).update(database)
        with contextlib.suppress(AttributeError):
            del connections[alias]
    try:
        yield
    finally:
        connections.close_all()
