"""RabbitMQ: a thin client of its own, and the transport on it."""

from backlane.engine.transport import Transport
from backlane.engine.transports.rabbit.transport import Rabbit

__all__ = ["Rabbit", "open_url"]


def open_url(url: str) -> Transport:
    """Return the transport for a URL such as `amqp://host:5672/vhost`, not connected yet.

    Raises:
        BadOption: a part of the URL is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    return Rabbit(url)
