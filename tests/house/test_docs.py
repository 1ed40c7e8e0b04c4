"""What exists is documented: every public name, error, command and option."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator

import click
import pytest
from tests.house.source import ROOT

import backlane
from backlane import errors
from backlane.cli import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command under its whole path, `backlane jobs list`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, spelt as the usual renderers do."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_every_public_name_is_documented():
    written = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    missing = [name for name in backlane.__all__ if not re.search(rf"\b{name}\b", written)]

    assert not missing, missing


def test_every_error_is_explained():
    page = text("docs/errors.md")
    kinds = [
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.BacklaneError)
    ]

    missing = [name for name in kinds if f"`{name}`" not in page]

    assert len(kinds) > 20
    assert not missing, missing


def test_every_command_is_documented():
    page = text("docs/cli.md")

    missing = [path for path, _ in commands(main, "backlane") if path not in page]

    assert not missing, missing


def test_every_option_is_documented():
    page = text("docs/cli.md")

    missing = [
        f"{path} {option}"
        for path, command in commands(main, "backlane")
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if option.startswith("--") and option not in page
    ]

    assert not missing, missing


def test_every_option_of_a_task_and_of_an_enqueue_is_documented():
    from backlane.options import EnqueueOptions, TaskOptions

    page = text("docs/settings.md")

    missing = [
        name
        for options in (TaskOptions, EnqueueOptions)
        for name in options.__annotations__
        if f"`{name}`" not in page
    ]

    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))

    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in anchors(aim.read_text(encoding="utf-8"))):
            broken.append(target)

    assert not broken, broken


def test_every_page_is_reached_from_the_index():
    reached = set(LINK.findall(text("docs/index.md")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}

    assert pages - reached - {"index.md"} == set()


def test_every_test_that_the_guarantees_name_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text("docs/guarantees.md"))

    missing = [
        f"{path}::{name}" if name else path
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}(" not in text(path))
    ]

    assert len(named) > 15
    assert not missing, missing


def test_the_house_is_shown_as_import_linter_holds_it():
    settings = tomllib.loads(text("pyproject.toml"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    shown = re.search(r"```\n(cli/.*?)```", text("CONTRIBUTING.md"), re.DOTALL)

    held = [name.strip() for layer in layers for name in layer.split("|")]

    assert shown is not None
    # a room stands at the start of a line, or behind a gap where two share one
    assert [
        room.strip("/")
        for room in re.findall(r"(?:^|\s{3,})([a-z_]+)/?(?=\s{3,})", shown[1], re.MULTILINE)
    ] == held
