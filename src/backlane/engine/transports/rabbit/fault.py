"""What goes wrong with a broker, in words of those who run one.

A broker's own texts name exchanges, keys and method numbers. What people can mend is told
in their words, with the command that mends it; the broker's text comes last.
"""

from __future__ import annotations

import re

from backlane.engine.transports.rabbit.address import Address
from backlane.errors import EngineUnavailable, SchemaMismatch

REFUSED, NOT_FOUND, LOCKED, PRECONDITION, NOT_ALLOWED = 403, 404, 405, 406, 530

_ARGUMENT = re.compile(
    r"inequivalent arg '([^']+)' for queue '([^']+)'.*?: received (.+?) but current is (.+?)$"
)
_VALUE = re.compile(r"the value '([^']*)'")
_LARGEST = re.compile(r"message size \d+ is larger than configured max size (\d+)")


class Declined(Exception):
    """The broker closed a channel, and said why."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code} {text}")

    @property
    def largest(self) -> int | None:
        """The most bytes that a message may have, if that was the reason."""
        found = _LARGEST.search(self.text)
        return int(found[1]) if found else None


def unreachable(address: Address, place: str, why: object) -> EngineUnavailable:
    """Say that nobody answers there."""
    return EngineUnavailable(
        f"RabbitMQ at {place} does not answer: {why}. Is it started, and is "
        f"{address.shown} its address?"
    )


def no_broker(address: Address, place: str, why: object) -> EngineUnavailable:
    """Say that it is no RabbitMQ, or another port of it."""
    return EngineUnavailable(
        f"what answers at {place} is not RabbitMQ: {why}. Look at the port and the scheme of "
        f"{address.shown}"
    )


def not_let_in(address: Address, place: str, code: int, text: str) -> EngineUnavailable:
    """Say why a connection was closed before it was open."""
    if code == REFUSED:
        return EngineUnavailable(
            f"RabbitMQ at {place} refuses the login of {address.user!r}: look at the name and "
            "the password in the URL (guest is let in from its own machine alone); "
            f"`rabbitmqctl add_user {address.user}` makes one"
        )
    if code == NOT_ALLOWED and "not found" in text:
        return EngineUnavailable(
            f"RabbitMQ at {place} has no virtual host {address.vhost!r}: it is the path of the "
            f"URL; `rabbitmqctl add_vhost {address.vhost}` makes it"
        )
    if code == NOT_ALLOWED and "refused" in text:
        return EngineUnavailable(
            f"RabbitMQ at {place} does not let {address.user!r} into the virtual host "
            f"{address.vhost!r}: {permission(address)}"
        )
    return EngineUnavailable(f"RabbitMQ at {place} did not open a connection: {text}")


def permission(address: Address) -> str:
    """Return the command that gives a user the rights that we need."""
    ours = address.prefix.replace("-", "\\-")
    return (
        f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '^{ours}\\.' "
        f"'^({ours}\\.|amq\\.default$)' '^{ours}\\.'"
    )


def declined(
    address: Address, error: Declined, queue: str, right: str = "configure"
) -> EngineUnavailable:
    """Say what the broker has against a queue, and what to do; `right` is what was used."""
    if error.code == REFUSED:
        return EngineUnavailable(
            f"RabbitMQ does not give {address.user!r} the right to {right} the queue {queue!r}: "
            f"{permission(address)}"
        )
    if error.code == LOCKED:
        return EngineUnavailable(
            f"the queue {queue!r} belongs to one other connection alone; delete it: "
            f"rabbitmqctl delete_queue {queue}"
        )
    found = _ARGUMENT.search(error.text)
    if found is not None:
        return SchemaMismatch(
            f"the queue {queue!r} exists with another {found[1]}: {_said(found[4])}, where "
            f"{_said(found[3])} is wanted. Queues keep what they were made with: set it back, "
            f"give the URL another prefix=, or let its messages run out and delete it: "
            f"rabbitmqctl delete_queue -p {address.vhost} {queue} --if-empty (the next use makes "
            "it anew)"
        )
    if error.code == PRECONDITION:
        return SchemaMismatch(f"the queue {queue!r} is not as we need it: {error.text}")
    return EngineUnavailable(f"RabbitMQ did not do what it should with {queue!r}: {error.text}")


def _said(text: str) -> str:
    value = _VALUE.search(text)
    if value is None:
        return text.strip("'")
    return value[1] or "an empty value"
