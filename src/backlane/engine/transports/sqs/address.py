"""Addresses: `sqs://eu-central-1?fifo=true` taken apart, and every part checked.

`sqs://` is Amazon's, by region; `sqs+http://host:port/region` and `sqs+https://` name
another endpoint, and may name its keys. Amazon's keys are found in the usual places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from backlane.engine.address import masked
from backlane.engine.url import options_of
from backlane.errors import BadOption

SCHEMES = {"sqs": None, "sqs+http": "http", "sqs+https": "https"}
KNOWN = ("prefix", "fifo", "visibility", "wait")  # the prefix is for who names our queues
REGION = re.compile(r"[a-z0-9-]{2,32}")

LONGEST_VISIBILITY = 43_200  # seconds: twelve hours, by SQS
LONGEST_WAIT = 20  # seconds: of one long poll, by SQS


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a URL asks for."""

    region: str
    endpoint: str | None = None  # None: Amazon's own, by the region
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    prefix: str | None = None  # of the queues that are ours; others name them with it
    fifo: bool = False
    # Seconds that a message stays ours unless extended. 30: what a worker that was killed
    # had in its hands is shown again soon, and one that lives extends or acknowledges it.
    visibility: int = 30
    wait: int = LONGEST_WAIT
    shown: str = ""

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return self.endpoint or f"Amazon SQS in {self.region}"


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        BadOption: a part is missing, or has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    parts, shown = urlsplit(url), masked(url)
    if parts.scheme not in SCHEMES:
        raise BadOption(f"{shown}: use one of {', '.join(f'{it}://' for it in SCHEMES)}")
    protocol = SCHEMES[parts.scheme]
    region, endpoint = _amazon(parts, shown) if protocol is None else _other(parts, shown)
    if not REGION.fullmatch(region):
        raise BadOption(f"{shown}: {region!r} is no region; use one such as 'eu-central-1'")
    options = options_of(parts.query, KNOWN, shown)
    return Address(
        region=region,
        endpoint=endpoint,
        key=unquote(parts.username) if parts.username else None,
        secret=unquote(parts.password) if parts.password else None,
        prefix=options.get("prefix"),
        fifo=_yes_or_no(options, "fifo", shown),
        visibility=_seconds(options, "visibility", 30, LONGEST_VISIBILITY, shown),
        wait=_seconds(options, "wait", LONGEST_WAIT, LONGEST_WAIT, shown),
        shown=shown,
    )


def _amazon(parts: SplitResult, shown: str) -> tuple[str, None]:
    if "@" in parts.netloc:
        raise BadOption(
            f"{shown}: keys for Amazon do not belong into a URL; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or use a profile or a role"
        )
    if not parts.netloc or parts.path.strip("/"):
        raise BadOption(
            f"{shown} names no region; write sqs://eu-central-1, or sqs+https://host/region "
            "for another endpoint"
        )
    return parts.netloc, None


def _other(parts: SplitResult, shown: str) -> tuple[str, str]:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0:
        raise BadOption(f"{shown} names no host and port; write sqs+http://host:9324/us-east-1")
    if bool(parts.username) != bool(parts.password):
        raise BadOption(f"{shown} has half of a pair of keys; write key:secret@host, or neither")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{host}:{port}" if port else host
    return parts.path.strip("/"), f"{SCHEMES[parts.scheme]}://{place}"


def _yes_or_no(options: dict[str, str], name: str, shown: str) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        raise BadOption(f"{shown}: {name} is {value!r}; use true or false")
    return value == "true"


def _seconds(options: dict[str, str], name: str, standard: int, most: int, shown: str) -> int:
    value = options.get(name, str(standard))
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= most:
        raise BadOption(f"{shown}: {name} is {value!r}; use whole seconds, 1 to {most}")
    return int(value)
