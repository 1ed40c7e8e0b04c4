"""RabbitMQ: a thin client of its own, and the transport on it."""

from backlane.engine.transport import Transport
from backlane.engine.transports.rabbit.transport import Rabbit

__all__ = ["Rabbit", "open_url"]


def open_url(url: str) -> Transport:
    """Return the transport at a broker's URL; it connects when it is first used.

    Raises:
        BadOption: the URL has a part that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    return Rabbit(url)
