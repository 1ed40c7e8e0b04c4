"""Auth: whose a request is, and whether it may.

Without tokens the gateway is for this machine alone: callers from elsewhere are refused,
and so are pages of other sites that a browser on this machine shows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from backlane.gateway.declined import decline
from backlane.gateway.site import ANY, Headers, Scope, Site, text
from backlane.gateway.tokens import ANYONE, Token

# What proxies say of whom they call for.
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})

CHALLENGE = 'Bearer realm="backlane"'


def caller_of(site: Site, scope: Scope, headers: Headers) -> Token:
    """Return whose request it is.

    Raises:
        Declined: 401 for a token that is missing or unknown, 403 for who must not call at all.
    """
    if site.tokens is None:
        if not site.is_public:
            _check_local(site, scope, headers)
        return ANYONE
    given = text(headers, b"authorization")
    if given is None:
        _unauthorised("this takes a token: send `Authorization: Bearer <token>`", CHALLENGE)
    scheme, _, secret = given.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        _unauthorised("the scheme is to be Bearer: `Authorization: Bearer <token>`", CHALLENGE)
    token = site.tokens.found(secret.strip())
    if token is None:
        _unauthorised(
            "this token is not known here, or is no more; make one with `backlane token add`",
            f'{CHALLENGE}, error="invalid_token"',
        )
    return token


def check(caller: Token, scope: str, names: Sequence[str] = ()) -> None:
    """Refuse a caller that lacks a scope, for all or for one of these tasks or queues.

    Raises:
        Declined: 403, naming the scope.
    """
    if caller is ANYONE or caller.allows(scope, names) or (scope == ANY):
        return
    narrowed = "".join(f" or {scope}:{name}" for name in names)
    decline(
        403,
        "forbidden",
        "The token does not open this",
        f"token {caller.name!r} lacks the scope {scope}{narrowed}; add a token that has it with "
        "`backlane token add`",
        (("WWW-Authenticate", f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'),),
        scope=scope,
    )


def check_any(caller: Token, scope: str) -> None:
    """Refuse a caller that has a scope for nothing at all."""
    if not caller.may(scope):
        check(caller, scope)


def _unauthorised(detail: str, challenge: str) -> NoReturn:
    decline(401, "unauthorized", "A token is needed", detail, (("WWW-Authenticate", challenge),))


def _check_local(site: Site, scope: Scope, headers: Headers) -> None:
    client = scope.get("client")
    if client and not is_loopback(client[0]):
        _forbidden(
            "this gateway has no tokens, so only its own machine may call it; start it with "
            "--tokens, or give gateway(app, tokens=…)"
        )
    if not _FORWARDED.isdisjoint(headers):  # a proxy on this machine, for somebody elsewhere
        _forbidden(
            "this gateway has no tokens, so no proxy may call it for others; start it with "
            "--tokens, or give gateway(app, tokens=…)"
        )
    host = text(headers, b"host") or ""
    # A page of another site that had its name point here would bring that name along.
    if site.is_served and host and not is_loopback(_parts(f"//{host}").hostname or ""):
        _forbidden(f"without tokens this gateway is called as localhost, not as {host[:100]!r}")
    # Browsers say where a request comes from; programs do not.
    origin = text(headers, b"origin")
    if text(headers, b"sec-fetch-site") in ("cross-site", "same-site") or (
        origin is not None and _parts(origin).netloc != host
    ):
        _forbidden("a page of another site must not call a gateway without tokens")


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        _forbidden(f"{address[:100]!r} is no address")


@lru_cache(maxsize=1_000)  # asked of each request, and reading an address takes 8 µs
def is_loopback(host: str) -> bool:
    """Say whether a name or address is this machine's own; a test's made-up one is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or host == "testclient"


def _forbidden(detail: str) -> NoReturn:
    decline(403, "forbidden", "Not from there", detail)
