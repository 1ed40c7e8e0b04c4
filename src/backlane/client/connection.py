"""Connections: the settings of a client, checked, and how httpx2 is set up for them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from backlane.client.core import Core, Settings
from backlane.client.pacer import Pacer
from backlane.client.runner import LIMITS
from backlane.errors import BadOption
from backlane.model.retry import Duration, milliseconds

DEADLINE = 60.0
TIMEOUT = 10.0


def core_of(timeout: Duration, deadline: Duration, attempts: int | None) -> Core:
    """Return the core of a new client.

    Raises:
        BadOption: a value cannot work.
    """
    if attempts is not None and (type(attempts) is not int or attempts < 1):
        raise BadOption(f"attempts is {attempts!r}; use a whole number from 1, or None")
    settings = Settings(
        _above_zero(timeout, "timeout"), _above_zero(deadline, "deadline"), attempts
    )
    return Core(settings, Pacer())


def http_of(url: str, token: str | None) -> dict[str, Any]:
    """Return what httpx2 is to be given.

    Raises:
        BadOption: the address or the token cannot work.
    """
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadOption(f"url is {url!r}; use the gateway's address, such as http://localhost:8000")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadOption("url is to be an address and a path alone; give a token as token=")
    headers = {"Accept": "application/json, application/problem+json"}
    if token is not None:
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise BadOption("token is not a text of printable ASCII characters")
        headers["Authorization"] = f"Bearer {token}"
    return {"base_url": url, "headers": headers, "limits": LIMITS, "follow_redirects": False}


def _above_zero(given: Duration, option: str) -> float:
    found = milliseconds(given, option)
    if found == 0:
        raise BadOption(f"{option} is 0, so nothing could be sent; use more")
    return found / 1000
