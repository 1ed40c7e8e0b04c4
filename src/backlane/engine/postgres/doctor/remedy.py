"""Remedies: the commands that people are told to run."""

from __future__ import annotations

from typing import LiteralString


def command(text: LiteralString, *names: object) -> str:
    """Return a command with these names in it, each quoted already as the command needs it."""
    return text.format(*names)
