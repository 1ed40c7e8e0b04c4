"""Commands that the documentation shows are commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from backlane.cli.root import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"^\s*\$ (?:\S+=\S+ )*backlane ([^|>\n]*)", re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    """Return every command line of the documentation, with its page."""
    return [(page.name, line.strip()) for page in PAGES for line in SHOWN.findall(page.read_text())]


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_command_line_of_the_documentation_is_understood(page, line):
    command: click.Command = main
    words, name = shlex.split(line, comments=True), "backlane"

    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(click.Context(command), words[0])
        assert inner is not None, f"{page}: backlane {line}"
        command, name, words = inner, words[0], words[1:]

    if not {"--help", "-h", "--version"} & set(words):
        command.make_context(name, words)


def test_the_documentation_shows_commands():
    assert len(shown()) >= 5
