"""Misfits: all that is wrong with arguments that came from outside, each with its path.

A typed decoder stops at the first thing that does not fit. Who fills in a form, or writes
a client, wants to hear of all of them: so, once it has stopped, each argument is decoded
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backlane.errors import nearest
from backlane.model.codec.call import Slot
from backlane.model.codec.json import decoder
from backlane.model.codec.proof import Found, narrowed, said

# Above it the first misfit is enough: naming a key means to decode the document again and
# again, and a stranger may have sent it.
_SEARCHED_BYTES = 64 * 1024
_MOST = 20

_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw])


def misfits(slots: Sequence[Slot], body: bytes) -> list[Found]:
    """Return what keeps `body` from being a call with these parameters, at most 20."""
    try:
        given = _by_name.decode(body)
    except (ValueError, RecursionError):
        return [Found("$", "the arguments are not a JSON object by name")]
    known = {slot.key: slot for slot in slots}
    found = [
        Found(f"$.{slot.key}", "is missing")
        for slot in slots
        if slot.is_required and slot.key not in given
    ]
    for name, raw in given.items():
        slot = known.get(name)
        if slot is None:
            found.append(Found(f"$.{name}", f"there is no such argument{nearest(name, known)}"))
        else:
            misfit = _misfit(slot.hint, bytes(raw))
            if misfit is not None:
                found.append(Found(f"$.{name}{misfit.path.removeprefix('$')}", misfit.why))
        if len(found) >= _MOST:
            break
    return found


def _misfit(hint: Any, value: bytes) -> Found | None:
    decode = decoder(hint)
    try:
        decode(value)
    except msgspec.ValidationError as error:
        if len(value) > _SEARCHED_BYTES:
            return Found("$", said(error))
        return narrowed(error, value, decode)
    except RecursionError:
        return Found("$", "is nested too deeply")
    except Exception as error:  # noqa: BLE001 - decoding runs code of the user's classes too
        return Found("$", said(error))
    return None
