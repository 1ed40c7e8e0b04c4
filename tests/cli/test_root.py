"""What holds for every command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backlane.cli.root import COMMANDS, main

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its full name, groups included."""
    context = click.Context(main, info_name="backlane")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        yield f"backlane {name}", command
        if isinstance(command, click.Group):
            for inner, subcommand in command.commands.items():
                yield f"backlane {name} {inner}", subcommand


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda each: str(each)[:40])
def test_a_command_says_what_it_does_in_the_manual_and_in_help(name, command):
    text = DOCS.read_text()

    assert command.help
    assert f"`{name}" in text


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda each: str(each)[:40])
def test_every_option_of_a_command_is_in_its_section_of_the_manual(name, command):
    section = section_of(name.split()[1])
    common = section_of("Common options")

    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
            for spelling in parameter.opts:
                assert f"`{spelling}" in section or f"`{spelling}" in common, f"{name} {spelling}"


def section_of(title: str) -> str:
    """Return the part of the manual under the heading that names `title`."""
    for part in DOCS.read_text().split("\n## ")[1:]:
        if title in part.partition("\n")[0]:
            return part
    raise AssertionError(f"docs/cli.md has no section for {title!r}")


def test_the_list_of_commands_says_what_each_says_of_itself():
    context = click.Context(main)

    for name, text in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(200).rstrip(".") == text.rstrip(".")


def test_help_imports_no_engine_and_no_command():
    code = (
        "import sys; from backlane.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = [m for m in sys.modules if m.startswith(('backlane.engine.sqlite', "
        "'backlane.worker.', 'backlane.cli.jobs', 'rich', 'apsw'))]\n"
        "assert not loaded, loaded"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_importing_the_package_does_not_load_click():
    code = "import sys, backlane; assert 'click' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_command_is_told_in_one_line_with_the_nearest_name(backlane):
    result = backlane("jbos")

    assert result.exit_code == 2
    assert result.stderr == (
        "backlane: no command 'jbos' (did you mean 'jobs'?) (see `backlane --help`)\n"
    )


def test_a_misspelt_option_is_told_in_one_line(backlane):
    result = backlane("jobs", "list", "--quue", "mail")

    assert result.exit_code == 2
    assert "--queue" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package(backlane):
    result = backlane("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("backlane, version ")


def test_a_reader_that_leaves_early_is_no_error(here):
    command = f"{sys.executable} -m backlane --help | true"

    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
