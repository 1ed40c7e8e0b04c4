"""Addresses: libpq's own URL with a few options of ours, taken apart and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backlane.errors import BadOption, UnknownOption, nearest

OWN = ("schema", "pool", "pooler")
POOLERS = ("transaction", "none")
LONGEST_NAME = 63  # bytes of an identifier; PostgreSQL cuts longer ones short, silently
MOST_CONNECTIONS = 1_000

# What libpq is asked for where the URL says nothing. A server that is gone without a
# word is noticed after about 10 s; a lease is three times as long.
DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "fallback_application_name": "backlane",
}
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_USER = re.compile(r"^([^/?#@]*?)(:[^/?#]*)?@")


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL asks for."""

    url: str  # as may be shown: no password
    conninfo: str = field(repr=False)
    database: str = ""
    schema: str = "backlane"
    pool: int = 8
    pooler: str | None = None  # None: found out by looking


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadOption: the URL is none of libpq's, or an option has a value that cannot work.
        UnknownOption: it has an option that neither we nor libpq know.
    """
    scheme, slashes, rest = url.partition("://")
    place, _, query = rest.partition("?")
    shown = _without_secrets(place, query)
    if not slashes:  # nothing of it is shown, for a password may stand anywhere
        raise BadOption(
            f"a URL that begins with {scheme.partition(':')[0]}: lacks the two slashes; write "
            "postgresql://user:password@host:5432/database"
        )
    options = parse_qsl(query, keep_blank_values=True)
    _check_names([name for name, _ in options], shown)
    own = {name: value for name, value in options if name in OWN}
    theirs = [(name, value) for name, value in options if name not in OWN]
    try:
        asked = conninfo_to_dict(f"postgresql://{place}?{urlencode(theirs, quote_via=quote)}")
    except psycopg.Error:
        # libpq's words repeat the URL, and with it the password.
        raise BadOption(
            f"{shown!r} is not a URL that libpq can read: write "
            "postgresql://user:password@host:5432/database, with anything else than letters "
            "and digits in a name or password percent-encoded"
        ) from None
    settings = DEFAULTS | {name: str(value) for name, value in asked.items() if value is not None}
    settings["client_encoding"] = "utf8"  # whatever the environment says: it is what we send
    if "," in settings.get("host", ""):
        # Of several servers only the primary can take jobs.
        settings.setdefault("target_session_attrs", "read-write")
    return Address(
        shown,
        make_conninfo("", **settings),
        settings.get("dbname", ""),
        schema=_schema(own.get("schema", "backlane"), shown),
        pool=_pool(own.get("pool", "8"), shown),
        pooler=_pooler(own.get("pooler"), shown),
    )


def _check_names(names: list[str], shown: str) -> None:
    known = sorted({*OWN, *_libpq_options()})
    for name in names:
        if name not in known:
            raise UnknownOption(
                f"{shown!r}: there is no option {name!r}{nearest(name, known)}; use "
                f"{', '.join(OWN)}, or one of libpq's connection parameters"
            )


def _libpq_options() -> list[str]:
    # `ssl=true` is what JDBC writes, and libpq takes it too in a URL.
    return [option.keyword.decode() for option in pq.Conninfo.get_defaults()] + ["ssl"]


def _schema(name: str, shown: str) -> str:
    # No quotes: the name stands in the text of functions too.
    is_plain = re.fullmatch(r"[\w .-]+", name) is not None
    if not is_plain or len(name.encode()) > LONGEST_NAME or name.startswith("pg_"):
        raise BadOption(
            f"{shown!r}: schema is {name!r}; use a name of 1 to {LONGEST_NAME} letters, digits, "
            "blanks, dots, '-' and '_' that does not begin with pg_, which is PostgreSQL's"
        )
    return name


def _pool(text: str, shown: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_CONNECTIONS:
        raise BadOption(
            f"{shown!r}: pool is {text!r}; use a number from 1 to {MOST_CONNECTIONS}, the most "
            "connections that verbs of a process have open"
        )
    return int(text)


def _pooler(name: str | None, shown: str) -> str | None:
    if name is not None and name not in POOLERS:
        raise BadOption(
            f"{shown!r}: pooler is {name!r}; use 'transaction' behind one that gives a "
            "connection for a transaction only (PgBouncer in transaction mode), or 'none' "
            "where a connection is one session of the server"
        )
    return name


def _without_secrets(place: str, query: str) -> str:
    place = _USER.sub(lambda found: f"{found[1]}@", place)
    kept = [part for part in query.split("&") if part and part.partition("=")[0] not in _SECRETS]
    return f"postgresql://{place}" + (f"?{'&'.join(kept)}" if kept else "")
