"""Pointers: where in a body something is, as JSON Pointer (RFC 6901) says it."""

from __future__ import annotations

import re

_STEP = re.compile(
    r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|\[(?P<quote>['\"])(?P<key>.*?)(?P=quote)\]|\[\.\.\.\]"
)


def pointer(path: str, within: str = "") -> str:
    """Return a path as msgspec and the codec write it (`$.address[0].zip`) as a pointer.

    Where the path leaves out which key it was, the pointer ends at what holds it.
    """
    steps = [within]
    for step in _STEP.finditer(path.removeprefix("$")):
        name = step["name"] or step["index"] or step["key"]
        if name is None:
            break
        steps.append(name.replace("~", "~0").replace("/", "~1"))
    return "/".join(steps)
