"""Addresses: `redis://host:6379/0?namespace=shop` taken apart, and every part checked.

`redis+cluster://` and `redis+sentinel://` name several hosts; `rediss…` and `valkeys…`
speak TLS; `redis+unix:///path` names a socket. The password is never shown again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from backlane.engine.address import shown as without_secrets
from backlane.engine.url import choice, file, host, options_of
from backlane.errors import BadOption

T = TypeVar("T")

SCHEMES = {  # how many servers there are, and whether they speak TLS
    "redis": ("single", False),
    "valkey": ("single", False),
    "rediss": ("single", True),
    "valkeys": ("single", True),
    "redis+unix": ("single", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
}
PORT, SENTINEL_PORT = 6379, 26379
NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DURABILITIES = ("server", "fsync", "replica", "unchecked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a URL asks for."""

    kind: str = "single"  # "single" | "cluster" | "sentinel"
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None  # of a unix socket
    master: str | None = None  # as the sentinels call it
    db: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None  # a file of certificates to trust, beside those of the system
    cert: str | None = None  # our own, where the server asks for one
    key: str | None = None
    is_verified: bool = True
    namespace: str = "default"
    durability: str = "server"
    pool: int = 32  # the most connections of blocking callers
    seconds: float = 4.0  # for a command that is under way: work goes on within 5 after a cut
    connect_seconds: float = 5.0

    @property
    def prefix(self) -> str:
        """What all keys begin with: one hash tag, so that they share a slot."""
        return f"backlane:1:{{{self.namespace}}}:"


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadOption: a part is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    parts = urlsplit(url)
    shown = without_secrets(url)
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise BadOption(f"{shown}: use one of {', '.join(f'{it}://' for it in SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    options = options_of(parts.query, KNOWN, shown)
    user, password, hosts = _authority(parts, kind, shown)
    path = master = None
    if scheme == "redis+unix":
        path = unquote(parts.path)
        if not path.startswith("/") or hosts:
            raise BadOption(f"{shown} names no socket: write redis+unix:///run/redis.sock")
        hosts = ()
    elif kind == "sentinel":
        master = unquote(parts.path.strip("/"))
        if not master or "/" in master:
            raise BadOption(
                f"{shown} names no master: write redis+sentinel://host1,host2/mymaster, with "
                "the name that the sentinels know it by"
            )
    return Address(
        kind=kind,
        hosts=hosts if path else hosts or (("localhost", PORT),),
        path=path,
        master=master,
        db=_db(parts, kind, path, options, shown),
        user=user,
        password=password,
        sentinel_password=options.get("sentinel_password"),
        tls=tls,
        ca=file(options, "ca", shown),
        cert=file(options, "cert", shown),
        key=file(options, "key", shown),
        is_verified=choice(options, "verify", ("yes", "no"), shown) != "no",
        namespace=_namespace(options, shown),
        durability=choice(options, "durability", DURABILITIES, shown) or "server",
        pool=_number(options, "pool", int, 32, shown),
        seconds=_number(options, "timeout", float, 4.0, shown),
        connect_seconds=_number(options, "connect_timeout", float, 5.0, shown),
    )


KNOWN = (
    *("namespace", "durability", "pool", "timeout", "connect_timeout", "db"),
    *("sentinel_password", "ca", "cert", "key", "verify"),
)


def _authority(
    parts: SplitResult, kind: str, shown: str
) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    login, at, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    standard = SENTINEL_PORT if kind == "sentinel" else PORT
    hosts = tuple(host(it, standard, shown) for it in places.split(",") if it)
    if len(hosts) > 1 and kind == "single":
        raise BadOption(
            f"{shown} names several hosts: use redis+cluster:// or redis+sentinel:// for those"
        )
    if not at:
        return None, None, hosts
    return unquote(user) or None, unquote(password) if colon else None, hosts


def _db(
    parts: SplitResult, kind: str, path: str | None, options: dict[str, str], shown: str
) -> int:
    given = options.get("db") or ("" if path or kind == "sentinel" else parts.path.strip("/"))
    if not given:
        return 0
    if not given.isascii() or not given.isdigit() or len(given) > 5:
        raise BadOption(f"{shown}: {given!r} is no number of a database; write /0")
    if kind == "cluster" and int(given):
        raise BadOption(f"{shown}: a cluster has database 0 alone; use namespace= to keep apart")
    return int(given)


def _namespace(options: dict[str, str], shown: str) -> str:
    namespace = options.get("namespace", "default")
    if not NAMESPACE.fullmatch(namespace):
        raise BadOption(
            f"{shown}: namespace is {namespace!r}; use 1 to 64 letters, digits, '_', '.' or '-'"
        )
    return namespace


def _number(
    options: dict[str, str], name: str, convert: Callable[[str], T], standard: T, shown: str
) -> T:
    value = options.get(name)
    if value is None:
        return standard
    try:
        number = convert(value)
    except ValueError:
        number = None
    if number is None or not 0 < number <= 3_600:  # type: ignore[operator]
        raise BadOption(f"{shown}: {name} is {value!r}; use a number above 0, at most 3600")
    return number
