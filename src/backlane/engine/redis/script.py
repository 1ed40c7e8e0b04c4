"""Scripts: a verb each, of the Lua files beside this one."""

from __future__ import annotations

import hashlib
from importlib.resources import files

_FOLDER = files("backlane.engine.redis") / "lua"


class Script:
    """The text of one verb, behind the parts that it needs, and the digest that names it."""

    __slots__ = ("digest", "name", "text")

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        self.text = "\n".join((_FOLDER / f"{it}.lua").read_text("utf-8") for it in (*parts, name))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
