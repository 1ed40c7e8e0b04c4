"""Addresses: the URL of a store in its parts, and what may be shown of it.

    amqp://user:password@host/vhost?prefix=shop&ledger=postgresql://…

`ledger=` is the last option: all behind it is the ledger's URL, as it is or
percent-encoded as a whole. Without it there is no ledger.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backlane.errors import BadOption

# As text: `re` compiles them when they are first needed, which few starts do.
_LEDGER = r"(?i)[?&]ledger="
_PLACES = r"((^|,)(\[[\da-fA-F:.]+\]|[^:,@]*)(:\d*)?)*"  # hosts and ports
_SECRET = ("password", "secret", "token")  # what the name of an option that hides has in it
_ENCODED = r"(?i)[a-z0-9+.-]+%(?:25)*3A"
_DEEPEST = 4  # times that a URL may be percent-encoded, and its password still is not shown


class Address(NamedTuple):
    """A transport's URL, and the URL of its ledger."""

    transport: str
    ledger: str | None = None

    @property
    def url(self) -> str:
        """All of it as one URL."""
        own = self.transport
        return own if self.ledger is None else _with(own, f"ledger={self.ledger}")


def address_of(url: str) -> Address:
    """Take the URL of a transport apart.

    Raises:
        BadOption: its ledger cannot be; says why.
    """
    own, ledger = parted(url)
    _check(own)
    if ledger is None:
        return Address(own)
    if not ledger:
        raise BadOption(
            f"{shown(own)}: ledger= is empty; write the URL of the store behind it, such as "
            "ledger=postgresql://…, or leave it out"
        )
    if re.search(_LEDGER, ledger):
        raise BadOption(f"{shown(url)} has ledger= twice; give one, as the last option")
    if "&" in ledger and "?" not in ledger:
        raise BadOption(
            f"{shown(url)}: all behind ledger= is the ledger's URL; write options of the broker "
            "before it, and an & that the ledger's URL has as %26"
        )
    return Address(own, ledger)


def _check(own: str) -> None:
    """Refuse what would be read otherwise than it is meant.

    Raises:
        BadOption: says how to write it.
    """
    if "://" not in own:
        raise BadOption(f"{shown(own)} is no URL; write {own.partition(':')[0]}://…")
    if "#" in own or _is_torn(own):
        raise BadOption(
            f"{shown(own)}: write what ends a part of a URL percent-encoded, also in a password: "
            "/ as %2F, ? as %3F, # as %23, @ as %40"
        )


def parted(url: str) -> tuple[str, str | None]:
    """Return the URL before `ledger=`, and the one behind it as it is to be used."""
    found = re.search(_LEDGER, url)
    if found is None:
        return url, None
    ledger = url[found.end() :]
    if re.match(_ENCODED, ledger):
        from urllib.parse import unquote  # 5 ms, which not every start shall pay

        ledger = unquote(ledger)
    return url[: found.start()], ledger


def shown(url: str) -> str:
    """Return a URL of any kind as it may be shown: without what is, or may be, a password."""
    own, ledger = parted(url)
    if ledger is None:
        return _shown(own)
    from urllib.parse import unquote  # as above

    for _ in range(_DEEPEST):
        if re.match(_ENCODED, ledger):
            ledger = unquote(ledger)
    return _with(_shown(own), f"ledger={shown(ledger)}")


def _shown(url: str) -> str:
    from urllib.parse import parse_qsl, urlencode  # as above

    address, question, query = masked(url).partition("?")
    options = [
        (name, "***" if any(it in name.lower() for it in _SECRET) else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return address + question + urlencode(options, safe="/:*")


def masked(url: str) -> str:
    """Return a URL without its password, also one that has characters which end a login."""
    scheme, slashes, rest = url.partition("://")
    login, at, place = _authority(rest).rpartition("@")
    if _is_torn(url):
        login, at, place = rest.rpartition("@")
    else:
        place = rest[len(login) + len(at) :]
    user, colon, _ = login.partition(":")
    return f"{scheme}{slashes}{user}{':***' if colon else ''}{at}{place}"


def _is_torn(url: str) -> bool:
    """Whether what seems to be the host is the begin of a login, which a / or so has ended."""
    rest = url.partition("://")[2]
    authority = _authority(rest)
    if "@" not in rest or "@" in authority:
        return False
    if not re.fullmatch(_PLACES, authority):
        return True
    # A user and the digits that a password begins with look like a host and its port; but no
    # path of ours has an @, and an option has its name before it.
    before = rest[len(authority) : rest.rindex("@")]
    path, _, option = before.partition("?")
    return bool(re.fullmatch(r"[^:,\[\]]+:\d*", authority)) and (
        "@" in rest.partition("?")[0] or "#" in path or "=" not in option
    )


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _with(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"
