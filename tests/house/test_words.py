"""One word for each thing: the glossary is whole, and our public names keep to it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from tests.house.source import ROOT

import backlane
from backlane.cli import main

GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS, UNUSED = GLOSSARY.split("## Words we do not use")
ROW = re.compile(r"^\| (.+?) \| (.+?) \|$", re.MULTILINE)


def rows(part: str) -> list[tuple[str, str]]:
    return [(left, right) for left, right in ROW.findall(part) if not left.startswith("--")]


def forbidden() -> set[str]:
    """Return the words of the left column of `Words we do not use`."""
    left = [re.sub(r"\(.*?\)", "", words) for words, _ in rows(UNUSED)[1:]]
    return {word.strip() for words in left for word in words.split(",")}


def parts(name: str) -> set[str]:
    """Return the words a name is made of: `WorkerPool` -> worker, pool."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return {word for word in re.split(r"[^a-z]+", spaced.lower()) if word}


def public_names() -> Iterator[str]:
    for name in backlane.__all__:
        yield name
        thing = getattr(backlane, name)
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    yield f"{name}.{member}"
                    if inspect.isfunction(value):
                        yield from (
                            f"{name}.{member}.{p}" for p in inspect.signature(value).parameters
                        )
    yield from command_names(main, "")


def command_names(command: click.Command, path: str) -> Iterator[str]:
    yield from (f"{path} {parameter.name}" for parameter in command.params if parameter.name)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield f"{path} {name}"
            inner = command.get_command(context, name)
            assert inner is not None
            yield from command_names(inner, f"{path} {name}")


def test_the_glossary_says_each_word_once():
    words = [word for word, _ in rows(WORDS) if word != "word"]

    assert len(words) > 40
    assert sorted(words) == sorted(set(words))


def test_no_public_name_uses_a_word_that_the_glossary_replaces():
    names = list(public_names())
    words = forbidden()

    wrong = [name for name in names if parts(name) & words]

    assert len(names) > 100
    assert len(words) > 20
    assert not wrong, wrong


def test_every_state_and_reason_is_in_the_glossary():
    from backlane.model.job import State
    from backlane.model.outcome import Reason

    missing = [word.value for word in [*State, *Reason] if f"`{word.value}`" not in WORDS]

    assert not missing, missing
