"""Codec: arguments, results and headers as JSON, typed by the function's annotations.

Data only: nothing here imports a name, calls a constructor or runs code that stored
bytes ask for. What a function's annotations say is what comes out, and what enqueue
accepts a worker can decode, because enqueue proves it on the spot.
"""

from backlane.model.codec.function import DEFAULT_MAX_BYTES, Codec
from backlane.model.codec.headers import decode_headers, encode_headers
from backlane.model.codec.json import MAX_DEPTH, plain

__all__ = [
    "DEFAULT_MAX_BYTES",
    "MAX_DEPTH",
    "Codec",
    "decode_headers",
    "encode_headers",
    "plain",
]
