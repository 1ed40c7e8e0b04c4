"""The Redis and Valkey engine: jobs in memory, as durable as the server is set to be.

One Lua script a verb, all keys of a namespace under one hash tag, the server's own time.
What an acknowledgement is worth is the server's setting; it is looked at with the first
connection, and told.
"""

from backlane.engine.protocol import Engine
from backlane.engine.redis.engine import RedisEngine
from backlane.model.clock import Clock

__all__ = ["RedisEngine", "open_url"]


def open_url(url: str, clock: Clock) -> Engine:
    """Return the engine for a URL such as `redis://host:6379/0?namespace=shop`, not opened yet.

    Raises:
        BadOption: a part of the URL is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    return RedisEngine(url, clock=clock)
