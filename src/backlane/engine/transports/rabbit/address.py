"""Addresses: `amqp://user:password@host:5672/vhost?prefix=shop` taken apart and checked.

`amqps://` speaks TLS. Several hosts are nodes of one cluster, tried in turn. The password
is never shown again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from backlane.engine.address import masked
from backlane.engine.transports.name import PREFIX, checked_prefix
from backlane.errors import BadOption, UnknownOption, nearest

PORTS = {"amqp": 5672, "amqps": 5671}
KNOWN = ("prefix", "heartbeat", "connect_timeout", "auth", "ca", "cert", "key", "verify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a URL asks for."""

    hosts: tuple[tuple[str, int], ...]
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    is_external: bool = False  # who we are is told by our certificate
    tls: bool = False
    ca: str | None = None  # a file of certificates to trust, beside those of the system
    cert: str | None = None
    key: str | None = None
    is_verified: bool = True
    prefix: str = PREFIX
    # A dead peer is noticed after two of these. RabbitMQ advises against less than 5 s.
    heartbeat_seconds: int = 10
    connect_seconds: float = 5.0
    shown: str = ""

    @property
    def host(self) -> str:
        """The hosts, as people write them."""
        return ", ".join(place(*it) for it in self.hosts)


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadOption: a part is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    shown = masked(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadOption(f"{shown} is no URL: {error}") from error
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        raise BadOption(f"{shown}: use amqp://host:5672/vhost, or amqps:// for TLS")
    options = _options(parts, shown)
    login, _, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    vhost = unquote(parts.path[1:]) or "/"
    if "/" in parts.path[1:]:
        raise BadOption(f"{shown}: a virtual host with a '/' in its name is written with %2F")
    return Address(
        hosts=tuple(_host(it, PORTS[scheme], shown) for it in places.split(","))
        or (("localhost", PORTS[scheme]),),
        vhost=vhost,
        user=unquote(user) if login else "guest",
        password=unquote(password) if colon else ("" if login else "guest"),
        is_external=_choice(options, "auth", ("password", "certificate"), shown) == "certificate",
        tls=scheme == "amqps",
        ca=_file(options, "ca", shown),
        cert=_file(options, "cert", shown),
        key=_file(options, "key", shown),
        is_verified=_choice(options, "verify", ("yes", "no"), shown) != "no",
        prefix=checked_prefix(options.get("prefix", PREFIX)),
        heartbeat_seconds=int(_number(options, "heartbeat", 10, shown)),
        connect_seconds=_number(options, "connect_timeout", 5.0, shown),
        shown=shown,
    )


def place(host: str, port: int) -> str:
    """Return a host and port as people write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(parts: SplitResult, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in KNOWN:
            raise UnknownOption(
                f"{shown}: there is no option {name!r}{nearest(name, KNOWN)}; "
                f"use one of {', '.join(KNOWN)}"
            )
    return options


def _host(text: str, standard: int, shown: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(\d{1,5}))?", text)
    if match is None or not 0 < int(match[2] or standard) <= 65_535:
        raise BadOption(f"{shown}: {text!r} is no host and port; write host:{standard}")
    return unquote(match[1].strip("[]")) or "localhost", int(match[2] or standard)


def _choice(options: dict[str, str], name: str, known: tuple[str, ...], shown: str) -> str | None:
    value = options.get(name)
    if value is not None and value not in known:
        raise BadOption(
            f"{shown}: {name} is {value!r}{nearest(value, known)}; use one of {', '.join(known)}"
        )
    return value


def _number(options: dict[str, str], name: str, standard: float, shown: str) -> float:
    value = options.get(name)
    if value is None:
        return standard
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 600:
        raise BadOption(f"{shown}: {name} is {value!r}; use a number of seconds from 1 to 600")
    return number


def _file(options: dict[str, str], name: str, shown: str) -> str | None:
    value = options.get(name)
    if value is not None and not Path(value).is_file():
        raise BadOption(f"{shown}: {name} is {value!r}, and there is no such file")
    return value
