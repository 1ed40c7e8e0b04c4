"""Headers: a job's small text by name (trace context, tenant), beside its arguments."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backlane.errors import TooLarge, Undecodable, Unencodable

# Headers travel with every job and are for machines in between; data belongs in arguments.
MAX_HEADERS_BYTES = 16 * 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str]).decode


def encode_headers(headers: Mapping[str, str]) -> bytes | None:
    """Return headers as JSON, or None where there are none.

    Raises:
        Unencodable: a name or value is not text.
        TooLarge: they take more than 16 KiB.
    """
    if not headers:
        return None
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not isinstance(value, str):
            raise Unencodable(
                f"headers: {name!r} holds {type(value).__name__}; use non-empty text names "
                "and text values, and arguments for anything else"
            )
    try:
        encoded = _encode({str(name): str(value) for name, value in headers.items()})
    except UnicodeEncodeError as error:
        raise Unencodable(
            f"headers: {error.object!r} has a lone surrogate; use text that is valid Unicode"
        ) from error
    if len(encoded) > MAX_HEADERS_BYTES:
        raise TooLarge(
            f"headers take {len(encoded)} bytes, their limit is {MAX_HEADERS_BYTES}; "
            "pass large values as arguments"
        )
    return encoded


def decode_headers(stored: bytes | None) -> dict[str, str]:
    """Return headers as they were given; empty for None.

    Raises:
        Undecodable: the bytes are not a mapping of text to text.
    """
    if stored is None:
        return {}
    try:
        return _decode(stored)
    except (ValueError, RecursionError) as error:
        raise Undecodable(
            f"headers are not a JSON object of text values: {error}; "
            "delete the job, or enqueue it again"
        ) from error
