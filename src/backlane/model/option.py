"""Options: names that exist, or the nearest one that does."""

from __future__ import annotations

from collections.abc import Iterable

from backlane.errors import UnknownOption, nearest


def check_options(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse an option that does not exist.

    Raises:
        UnknownOption: names it, and the nearest one that does exist.
    """
    known = list(known)
    for option in given:
        if option not in known:
            raise UnknownOption(
                f"{what} has no option {option!r}{nearest(option, known)}; "
                f"it has {', '.join(sorted(known))}"
            )
