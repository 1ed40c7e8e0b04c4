"""Faults: what the server and the network say, told as errors that say what to do.

Foreign errors are translated here and nowhere else.
"""

from __future__ import annotations

from backlane.errors import (
    BacklaneError,
    EngineBusy,
    EngineUnavailable,
    NotSupported,
    OutcomeUnknown,
    StoreCorrupt,
    StoreFull,
)

# What a server says before it has done anything of a command.
_WAITS = {
    "LOADING": "is reading its data from disk after a start; it answers soon",
    "READONLY": "is a replica and takes no writes; a fail-over is under way, or the URL names one",
    "MASTERDOWN": "is a replica that has lost its master; a fail-over is under way",
    "CLUSTERDOWN": "is of a cluster that does not serve this slot now",
    "TRYAGAIN": "is moving this slot to another node; it answers soon",
    "NOREPLICAS": "has fewer replicas than it was told to have before it takes writes "
    "(min-replicas-to-write)",
    "UNBLOCKED": "became a replica just now; a fail-over is under way",
}
_RIGHTS = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED")


class Said(Exception):
    """What a server answered instead of a value. hiredis makes these."""

    @property
    def code(self) -> str:
        """The first word: what went wrong, for machines."""
        return str(self).partition(" ")[0]


def refused(said: Said, place: str, *, was_written: bool = False) -> BacklaneError:
    """Return the error for an answer of the server that is none."""
    error = _told(said, place)
    if was_written and isinstance(error, EngineUnavailable):
        # An earlier step of the same plan was carried out.
        return OutcomeUnknown(f"{error}; a part of it was carried out: send the same again")
    return error


def _told(said: Said, place: str) -> BacklaneError:
    code, text = said.code, str(said)
    if code in _WAITS:
        return EngineUnavailable(f"{place} {_WAITS[code]}; nothing was changed")
    if code == "OOM" or "OOM command not allowed" in text:
        return StoreFull(
            f"{place} has used the memory it may (maxmemory), so nothing was stored; what was "
            "acknowledged before is safe. Raise maxmemory, or let workers catch up: work "
            "resumes by itself"
        )
    if code == "MISCONF" or "MISCONF" in text:
        return StoreFull(
            f"{place} cannot write to its disk, so it takes no writes and nothing was stored; "
            "free some space, and see the server's log: work resumes by itself"
        )
    if code == "BUSY":
        return EngineBusy(f"{place} is busy with another script for long; try again")
    if code == "NOAUTH":
        return EngineUnavailable(
            f"{place} wants a password: name it in the URL, as in redis://:PASSWORD@host:6379/0"
        )
    if code == "ERR" and text.startswith("ERR AUTH"):
        return EngineUnavailable(f"{place} wants no password: leave it out of the URL ({text})")
    if "DB index is out of range" in text:
        return EngineUnavailable(
            f"{place} has no database of the number that the URL names; use /0, and namespace= to "
            "keep applications apart, or raise the server's setting `databases`"
        )
    if code in _RIGHTS:
        return EngineUnavailable(
            f"{place} refused the login or a right ({text}); a user needs ~backlane:* keys, "
            "&backlane:* channels and the commands that docs/engines/redis.md lists"
        )
    if "max number of clients" in text:
        return EngineBusy(f"{place} has as many clients as it may (maxclients); try again")
    if "unknown command" in text.lower():
        return NotSupported(f"{place} is too old, or hides commands: {text}; use Redis 7 or newer")
    return StoreCorrupt(
        f"{place} answered {text[:500]!r}. Keys of backlane's names that are not as backlane made "
        "them do that, or a part of them was lost; use another namespace, or restore the data"
    )


def unreachable(error: BaseException, place: str) -> EngineUnavailable:
    """Return the error for a server that cannot be connected to: nothing was sent."""
    return EngineUnavailable(
        f"{place} cannot be reached ({_brief(error)}); check that the server runs there and that "
        "this machine may connect to it"
    )


def cut_off(error: BaseException, place: str, *, may_be_done: bool) -> BacklaneError:
    """Return the error for a connection that was lost while something was under way."""
    if may_be_done:
        return OutcomeUnknown(
            f"{place} was lost before it answered ({_brief(error)}), so it is not known whether it "
            "was done; send the same ids again, which is safe"
        )
    return EngineUnavailable(f"{place} was lost ({_brief(error)}); nothing was changed")


def _brief(error: BaseException) -> str:
    return str(error) or type(error).__name__
