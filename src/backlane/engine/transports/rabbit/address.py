"""Addresses: `amqp://user:password@host:5672/vhost?prefix=shop` taken apart and checked.

`amqps://` speaks TLS. Several hosts are nodes of one cluster, tried in turn. The password
is never shown again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from backlane.engine.address import masked
from backlane.engine.transports.name import PREFIX, checked_prefix
from backlane.engine.url import choice, file, host, options_of, place
from backlane.errors import BadOption

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
    options = options_of(parts.query, KNOWN, shown)
    login, _, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    vhost = unquote(parts.path[1:]) or "/"
    if "/" in parts.path[1:]:
        raise BadOption(f"{shown}: a virtual host with a '/' in its name is written with %2F")
    return Address(
        hosts=tuple(host(it, PORTS[scheme], shown) for it in places.split(","))
        or (("localhost", PORTS[scheme]),),
        vhost=vhost,
        user=unquote(user) if login else "guest",
        password=unquote(password) if colon else ("" if login else "guest"),
        is_external=choice(options, "auth", ("password", "certificate"), shown) == "certificate",
        tls=scheme == "amqps",
        ca=file(options, "ca", shown),
        cert=file(options, "cert", shown),
        key=file(options, "key", shown),
        is_verified=choice(options, "verify", ("yes", "no"), shown) != "no",
        prefix=checked_prefix(options.get("prefix", PREFIX)),
        heartbeat_seconds=int(_number(options, "heartbeat", 10, shown)),
        connect_seconds=_number(options, "connect_timeout", 5.0, shown),
        shown=shown,
    )


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
