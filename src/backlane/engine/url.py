"""URLs: the parts that several engines and transports have alike, taken and checked.

`shown` is the URL as it may be shown, for what is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from backlane.errors import BadOption, UnknownOption, nearest


def options_of(query: str, known: Sequence[str], shown: str) -> dict[str, str]:
    """Return the options of a URL by their names.

    Raises:
        UnknownOption: it has one that is not known.
    """
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise UnknownOption(
                f"{shown}: there is no option {name!r}{nearest(name, known)}; "
                f"use one of {', '.join(known)}"
            )
    return options


def choice(options: Mapping[str, str], name: str, known: Sequence[str], shown: str) -> str | None:
    """Return one of the known values; None: the option is not there.

    Raises:
        BadOption: it has another value.
    """
    value = options.get(name)
    if value is not None and value not in known:
        raise BadOption(
            f"{shown}: {name} is {value!r}{nearest(value, known)}; use one of {', '.join(known)}"
        )
    return value


def file(options: Mapping[str, str], name: str, shown: str) -> str | None:
    """Return the path of a file; None: the option is not there.

    Raises:
        BadOption: there is no such file.
    """
    value = options.get(name)
    if value is not None and not Path(value).is_file():
        raise BadOption(f"{shown}: {name} is {value!r}, and there is no such file")
    return value


def host(text: str, standard: int, shown: str) -> tuple[str, int]:
    """Return a host and its port, which is `standard` where none is named.

    Raises:
        BadOption: it is none.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(\d{1,5}))?", text)
    if match is None or not 0 < int(match[2] or standard) <= 65_535:
        raise BadOption(f"{shown}: {text!r} is no host and port; write host:{standard}")
    return unquote(match[1].strip("[]")) or "localhost", int(match[2] or standard)


def place(host: str, port: int) -> str:
    """Return a host and port as people write them."""
    return f"[{host}]:{port}" if ":" in host else f"{quote(host)}:{port}"
