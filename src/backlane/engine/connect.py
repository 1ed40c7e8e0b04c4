"""URL -> engine. Third parties add theirs under the entry-point group `backlane.engines`."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from backlane.engine.protocol import Engine
from backlane.errors import BadOption, NotSupported, nearest
from backlane.model.clock import Clock

Opener = Callable[[str, Clock], Engine]

_LOGIN = re.compile(r"//([^@/?#]*)@")  # who connects, and perhaps a password

# Imported when named, so that `import backlane` loads no engine.
_OWN = {
    "memory": "backlane.engine.memory",
    "sqlite": "backlane.engine.sqlite",
    "postgresql": "backlane.engine.postgres",
    "postgres": "backlane.engine.postgres",
    "redis": "backlane.engine.redis",
    "rediss": "backlane.engine.redis",
    "valkey": "backlane.engine.redis",
    "valkeys": "backlane.engine.redis",
    "redis+unix": "backlane.engine.redis",
    "redis+sentinel": "backlane.engine.redis",
    "rediss+sentinel": "backlane.engine.redis",
    "redis+cluster": "backlane.engine.redis",
    "rediss+cluster": "backlane.engine.redis",
}
# What each of them needs beside us, by the folder of the engine.
_EXTRA = {"postgres": "psycopg", "redis": "hiredis"}


def connect(url: str, clock: Clock) -> Engine:
    """Return the engine that `url` names, not opened yet.

    Raises:
        BadOption: the scheme is unknown, or the engine does not accept the URL.
        NotSupported: the engine needs a library that is not installed; names the extra.
    """
    if not isinstance(url, str):
        raise BadOption(f"{url!r} is not a URL; use one such as 'sqlite:///jobs.db'")
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme in _OWN:
        return _opener(_OWN[scheme])(url, clock)
    # Here and not at the top: with its zip and mail parsers it is a tenth of all that
    # `import backlane` costs, and only an engine of a third party needs it.
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group="backlane.engines")}
    if scheme in found:
        opener: Opener = found[scheme].load()
        return opener(url, clock)
    known = sorted([*_OWN, *found])
    raise BadOption(
        f"no engine for {shown(url)!r}: the scheme is {scheme!r}{nearest(scheme, known)}; "
        f"known: {', '.join(known)}; use 'sqlite:///jobs.db' for a SQLite file"
    )


def shown(url: str) -> str:
    """Return a URL of any kind as it may be shown: without what is, or may be, a password."""

    def without_password(login: re.Match[str]) -> str:
        user, colon, _ = login[1].partition(":")
        return f"//{user}:***@" if colon else f"//{user}@"

    from urllib.parse import parse_qsl, urlencode  # 5 ms, which not every start shall pay

    address, question, query = url.partition("?")
    options = [
        (name, "***" if "password" in name.lower() else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return _LOGIN.sub(without_password, address) + question + urlencode(options, safe="/:*")


def _opener(module: str) -> Opener:
    """Import an engine of our own.

    Raises:
        NotSupported: a library is missing that it needs.
    """
    try:
        opener: Opener = import_module(module).open_url
    except ImportError as error:
        extra = module.rpartition(".")[2]
        if extra not in _EXTRA or (error.name or "").startswith("backlane"):
            raise
        raise NotSupported(
            f"the engine for {extra} needs {_EXTRA[extra]}: pip install 'backlane[{extra}]' "
            f"({error})"
        ) from error
    return opener
