"""RabbitMQ: a thin client of its own, and the transport on it."""

from backlane.engine.transports.rabbit.transport import Rabbit

__all__ = ["Rabbit"]
