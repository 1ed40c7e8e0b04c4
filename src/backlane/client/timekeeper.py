"""The timekeeper: ends a blocking request at its time, however slowly its answer comes.

A timeout of httpx2 is for one read, and begins anew with each byte: a server that sends a
head byte by byte would keep a thread for as long as it likes. So each read of a connection
is given what is left of the whole request, which runs on one thread from end to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2


class Timekeeper:
    """Knows when the request of each thread is to be over.

    Args:
        http: whose connections it looks to. A transport that is none of httpx2's own is
            left as it is.
    """

    def __init__(self, http: httpx2.Client) -> None:
        self._times = threading.local()
        # httpx2 has no public way to its connections; without one, each read has its timeout.
        mounts = getattr(http, "_mounts", {}).values()
        for transport in (getattr(http, "_transport", None), *mounts):
            pool = getattr(transport, "_pool", None)
            if pool is not None and hasattr(pool, "_network_backend"):
                pool._network_backend = _Backend(pool._network_backend, self)

    @contextmanager
    def ending(self, ends: float) -> Iterator[None]:
        """End what is read within the block at this time of `time.monotonic`."""
        self._times.ends = ends
        try:
            yield
        finally:
            self._times.ends = None

    def rest(self, timeout: float | None) -> float | None:
        """Return the timeout of one read.

        Raises:
            httpx2.ReadTimeout: the time is over.
        """
        ends: float | None = getattr(self._times, "ends", None)
        if ends is None:
            return timeout
        rest = ends - time.monotonic()
        if rest <= 0:
            raise httpx2.ReadTimeout("the answer came too slowly")
        return rest if timeout is None else min(rest, timeout)


class _Backend:
    """Makes connections that keep the time."""

    def __init__(self, inner: Any, keeper: Timekeeper) -> None:
        self._inner, self._keeper = inner, keeper

    def connect_tcp(self, *given: Any, **named: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(*given, **named), self._keeper)

    def connect_unix_socket(self, *given: Any, **named: Any) -> _Stream:
        return _Stream(self._inner.connect_unix_socket(*given, **named), self._keeper)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream:
    """A connection that keeps the time."""

    def __init__(self, inner: Any, keeper: Timekeeper) -> None:
        self._inner, self._keeper = inner, keeper

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        part: bytes = self._inner.read(max_bytes, self._keeper.rest(timeout))
        return part

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, *given: Any, **named: Any) -> _Stream:
        return _Stream(self._inner.start_tls(*given, **named), self._keeper)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
