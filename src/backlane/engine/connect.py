"""URL -> engine. A broker's URL names its ledger too, or it is bare.

Third parties add their engines under the entry-point group `backlane.engines`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, cast

from backlane.engine.address import Address, address_of, parted, shown
from backlane.engine.protocol import Engine
from backlane.engine.transports.name import PREFIX, checked_prefix
from backlane.errors import BadOption, NotSupported, nearest
from backlane.model.clock import Clock

if TYPE_CHECKING:  # an application that has no broker need not make their classes
    from backlane.engine.offering import Ledger
    from backlane.engine.transport import Transport

Opener = Callable[[str, Clock], Engine]
TransportOpener = Callable[[str], "Transport"]

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
# What carries messages: before a ledger, or bare. Each has `open_url(url) -> Transport`, which
# opens nothing; its URL comes without `ledger=`. What is made of it is
# `Brokered(transport, ledger, url=…, prefix=…)` or `Bare(transport, clock, url=…, prefix=…)`.
_CARRIERS = {
    "amqp": "backlane.engine.transports.rabbit",
    "amqps": "backlane.engine.transports.rabbit",
    "sqs": "backlane.engine.transports.sqs",
    "sqs+http": "backlane.engine.transports.sqs",
    "sqs+https": "backlane.engine.transports.sqs",
}
_BARE, _BROKERED = "backlane.engine.bare", "backlane.engine.brokered"

# What each of them needs beside us, and by which extra it comes.
_EXTRA = {
    "backlane.engine.postgres": ("psycopg", "postgres"),
    "backlane.engine.redis": ("hiredis", "redis"),
    "backlane.engine.transports.rabbit": ("pamqp", "rabbitmq"),
    "backlane.engine.transports.sqs": ("boto3", "sqs"),
}


def connect(url: str, clock: Clock) -> Engine:
    """Return the engine that `url` names, not opened yet.

    Raises:
        BadOption: the scheme is unknown, or the engine does not accept the URL.
        NotSupported: the engine needs a library that is not installed; names the extra.
    """
    if not isinstance(url, str):
        raise BadOption(f"{url!r} is not a URL; use one such as 'sqlite:///jobs.db'")
    scheme = scheme_of(url)
    if scheme in _CARRIERS:
        return _carried(address_of(url), _CARRIERS[scheme], clock)
    if scheme in _OWN:
        _check_no_ledger(url)
        return _opener(_OWN[scheme])(url, clock)
    # Here and not at the top: with its zip and mail parsers it is a tenth of all that
    # `import backlane` costs, and only an engine of a third party needs it.
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group="backlane.engines")}
    if scheme in found:
        opener: Opener = found[scheme].load()
        return opener(url, clock)
    known = sorted([*_OWN, *_CARRIERS, *found])
    raise BadOption(
        f"no engine for {shown(url)!r}: the scheme is {scheme!r}{nearest(scheme, known)}; "
        f"known: {', '.join(known)}; use 'sqlite:///jobs.db' for a SQLite file"
    )


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case; "": it has none."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


def keeps_jobs(url: str) -> bool:
    """Whether it names a store of our own, with or without a broker before it."""
    scheme = scheme_of(url)
    return scheme in _OWN or (scheme in _CARRIERS and parted(url)[1] is not None)


def url_of(url: str | None, transport: str | None, ledger: str | None) -> str:
    """Return the one URL of a store that is given as such, or as a transport and its ledger.

    Raises:
        BadOption: both are given, or neither, or a transport and a ledger that do not go together.
    """
    if transport is None and ledger is None:
        if url is None:
            raise BadOption("None is not a URL; give that of a store, such as 'sqlite:///jobs.db'")
        return url
    for name, given in (("transport", transport), ("ledger", ledger)):
        if not isinstance(given, str | None):
            raise BadOption(f"{name} is {given!r}; use a URL")
    if url is not None:
        raise BadOption("give one URL, or transport= and ledger=, not both")
    if transport is None:
        raise BadOption(
            f"ledger={shown(ledger or '')!r} comes with transport=; give the URL of a store "
            "alone where no broker carries its jobs"
        )
    if scheme_of(transport) not in _CARRIERS:
        raise BadOption(
            f"transport={shown(transport)!r} carries no jobs; use amqp://… (RabbitMQ) or sqs://… "
            "(Amazon SQS), and give the URL of a store alone"
        )
    if ledger is None:
        return transport
    if parted(transport)[1] is not None:
        raise BadOption(f"{shown(transport)!r} has a ledger already; leave ledger= out of one")
    return f"{transport}{'&' if '?' in transport else '?'}ledger={ledger}"


def _carried(address: Address, module: str, clock: Clock) -> Engine:
    """Return the engine that a transport makes, with its ledger or bare."""
    url, prefix = shown(address.url), prefix_of(address.transport)
    ledger = None if address.ledger is None else _ledger(address.ledger, clock)
    opener: TransportOpener = _imported(module).open_url
    transport = opener(address.transport)
    made: Engine
    if ledger is None:
        made = _imported(_BARE).Bare(transport, clock, url=url, prefix=prefix)
    else:
        made = _imported(_BROKERED).Brokered(transport, ledger, url=url, prefix=prefix)
    return made


def prefix_of(transport: str) -> str:
    """Return what the names of a broker's queues begin with.

    Raises:
        BadOption: it cannot stand before names, or is given twice.
    """
    options = [option.partition("=") for option in transport.partition("?")[2].split("&")]
    given = [value for name, _, value in options if name.lower() == "prefix"]
    if len(given) > 1:
        raise BadOption(f"{shown(transport)} has prefix= twice; give one")
    return checked_prefix(given[0]) if given else PREFIX


def _ledger(url: str, clock: Clock) -> Ledger:
    """Return the native engine that a ledger's URL names.

    Raises:
        BadOption: it names none that a transport can be put before.
    """
    scheme = scheme_of(url)
    if scheme in _CARRIERS:
        raise BadOption(
            f"ledger={shown(url)} is a broker itself, and a ledger keeps the jobs; use "
            "postgresql://… or sqlite:///…"
        )
    if scheme not in _OWN:
        raise BadOption(
            f"no ledger for {shown(url)!r}: the scheme is {scheme!r}{nearest(scheme, _OWN)}; "
            f"known: {', '.join(sorted(_OWN))}; write its URL whole and last: "
            "…&ledger=postgresql://…"
        )
    # Ours can all be offered from; what is between them and the types is only `Opener`.
    return cast("Ledger", _opener(_OWN[scheme])(url, clock))


def _check_no_ledger(url: str) -> None:
    own, ledger = parted(url)
    if ledger is not None:
        raise BadOption(
            f"{shown(own)} keeps its jobs itself and takes no ledger=; that is for a broker: "
            "amqp://…?ledger=… or sqs://…?ledger=…"
        )


def _opener(module: str) -> Opener:
    opener: Opener = _imported(module).open_url
    return opener


def _imported(module: str) -> ModuleType:
    """Import an engine or a transport of our own.

    Raises:
        NotSupported: a library is missing that it needs.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if module not in _EXTRA or (error.name or "").startswith("backlane"):
            raise
        library, extra = _EXTRA[module]
        raise NotSupported(
            f"the engine for {extra} needs {library}: pip install 'backlane[{extra}]' ({error})"
        ) from error
