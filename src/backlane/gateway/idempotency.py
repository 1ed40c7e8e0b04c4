"""What a request says of earlier tries: its Idempotency-Key, and the ticket it was given."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from backlane.gateway.declined import decline
from backlane.gateway.site import Exchange

TICKET_BYTES = 256

# As long as a key may be in our own store, printable, and not only blanks.
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def idempotency_key(exchange: Exchange) -> dict[str, Any]:
    """Return the option for the request's key; each caller has keys of its own.

    The draft of the header wants a quoted text, many clients send it bare; both are the
    same key.

    Raises:
        Declined: 400, it is no key.
    """
    given = exchange.header(b"idempotency-key")
    if given is None:
        return {}
    key = given.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        decline(
            400,
            "bad-idempotency-key",
            "This is no key",
            "Idempotency-Key is to be 1 to 255 printable ASCII characters, such as a UUID",
        )
    whose = f"{exchange.caller.name}\0{key}"
    return {"idempotency_key": hashlib.sha256(whose.encode()).hexdigest()}


def ticket(exchange: Exchange) -> dict[str, Any]:
    """Return the option for the ticket of an earlier refusal; what is none opens nothing."""
    given = exchange.header(b"backlane-ticket")
    if not given or len(given) > TICKET_BYTES:
        return {}
    return {"ticket": given}
