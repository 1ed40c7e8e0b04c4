"""What a plan of this engine runs over: a connection to the server, sync or async."""

from __future__ import annotations

from typing import Any, Protocol

from backlane.engine.redis.script import Script


class RedisTx(Protocol):
    """An open line to the server. A call of a script is a transaction of its own."""

    async def call(self, script: Script, *args: Any) -> list[Any]:
        """Run a script on `[wall | nil, boot | nil, *args]`; return its answer.

        Arguments are packed: see `sheet.raw` for bytes. The answer is what RESP made of
        it: bytes, int, None and lists; by convention its first element is the wall clock.
        """
