"""URL -> engine. Third parties add theirs under the entry-point group `backlane.engines`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from backlane.engine.protocol import Engine
from backlane.errors import BadOption, nearest
from backlane.model.clock import Clock

Opener = Callable[[str, Clock], Engine]

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
    "redis+sentinel": "backlane.engine.redis",
    "redis+cluster": "backlane.engine.redis",
}


def connect(url: str, clock: Clock) -> Engine:
    """Return the engine that `url` names, not opened yet.

    Raises:
        BadOption: the scheme is unknown, or the engine does not accept the URL.
    """
    if not isinstance(url, str):
        raise BadOption(f"{url!r} is not a URL; use one such as 'sqlite:///jobs.db'")
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme in _OWN:
        opener: Opener = import_module(_OWN[scheme]).open_url
        return opener(url, clock)
    # Here and not at the top: with its zip and mail parsers it is a tenth of all that
    # `import backlane` costs, and only an engine of a third party needs it.
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group="backlane.engines")}
    if scheme in found:
        opener = found[scheme].load()
        return opener(url, clock)
    known = sorted([*_OWN, *found])
    raise BadOption(
        f"no engine for {url!r}: the scheme is {scheme!r}{nearest(scheme, known)}; "
        f"known: {', '.join(known)}; use 'sqlite:///jobs.db' for a SQLite file"
    )
