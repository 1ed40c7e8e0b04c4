"""Exposition: figures as Prometheus reads them (text format 0.0.4).

Written here in fifty lines rather than taken from a client library: what we tell is read
from the store when it is asked for, so a registry of live objects would only be in the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


class Exposition:
    """A text to which families of figures are added."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lines: list[str] = []

    def family(self, name: str, kind: Kind, told: str) -> Family:
        """Begin a family: all figures of one name."""
        full = f"{self._prefix}_{name}"
        self._lines += [f"# HELP {full} {_escaped(told)}", f"# TYPE {full} {kind}"]
        return Family(full, self._lines)

    def encoded(self) -> bytes:
        """Return the whole text."""
        return ("\n".join(self._lines) + "\n").encode()


class Family:
    """The figures of one name, told apart by their labels."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self._name, self._lines = name, lines

    def add(self, value: float | None, suffix: str = "", **labels: str) -> None:
        """Add a figure; one that is not known is left out, which is not the same as 0."""
        if value is not None:
            self._lines.append(f"{self._name}{suffix}{_labelled(labels)} {_number(value)}")


def _labelled(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inside = ",".join(
        f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"'
        for name, value in labels.items()
    )
    return f"{{{inside}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
