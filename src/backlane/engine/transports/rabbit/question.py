"""Methods that name queues. pamqp takes the letters of the standard alone; RabbitMQ all."""

from __future__ import annotations

from pamqp import base, commands


class Declare(commands.Queue.Declare):
    """Make a queue, or look whether it is there."""

    def validate(self) -> None:
        """Take any name."""


class Bind(commands.Queue.Bind):
    """Lead messages into a queue."""

    def validate(self) -> None:
        """Take any name."""


class Purge(commands.Queue.Purge):
    """Drop what waits in a queue."""

    def validate(self) -> None:
        """Take any name."""


class Delete(commands.Queue.Delete):
    """Delete a queue."""

    def validate(self) -> None:
        """Take any name."""


class Consume(commands.Basic.Consume):
    """Have a queue's messages brought."""

    def validate(self) -> None:
        """Take any name."""


class Fan(commands.Exchange.Declare):
    """Make what leads to a queue."""

    def validate(self) -> None:
        """Take any name."""


Asked = Declare | Consume
Answer = base.Frame
