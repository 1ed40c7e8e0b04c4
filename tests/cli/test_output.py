"""How answers look: on a terminal, in a pipe, with rich and without."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from backlane.cli.output import age, count, plain_table, size

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; "
MAIN = "from backlane.cli import main; main()"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (-5, "0.0 s"),
        (1_250, "1.2 s"),
        (59_000, "59 s"),
        (90_000, "1.5 min"),
        (7_200_000, "2.0 h"),
        (129_600_000, "1.5 d"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(milliseconds, text):
    assert age(milliseconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**28, "256.0 MiB"), (2**41, "2048.0 GiB")],
)
def test_a_size_is_told_in_its_largest_unit(number, text):
    assert size(number) == text


def test_one_is_singular():
    assert (count(1, "job"), count(2_000, "job")) == ("1 job", "2,000 jobs")


def test_a_table_is_aligned_and_a_cell_stays_on_its_line():
    lines = list(plain_table(("name", ">jobs"), [("mail", "7"), ("two\nlines", "1,000")]))

    assert lines == [
        "name        jobs",
        "mail           7",
        "two lines  1,000",
    ]


def on_a_terminal(here: Path, before: str, *args: str) -> tuple[str, str]:
    """Return what a command writes to a terminal on stdout, and what to one on stderr."""
    read = []
    streams = [pty.openpty(), pty.openpty()]
    process = subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *args],
        cwd=here,
        stdout=streams[0][1],
        stderr=streams[1][1],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    process.wait(30)
    for ours, theirs in streams:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65_536):
                said += part
        except OSError:  # how Linux tells the end of a terminal
            pass
        os.close(ours)
        read.append(said.decode())
    return read[0], read[1]


@pytest.mark.parametrize(("before", "is_bold"), [("", True), (WITHOUT_RICH, False)])
def test_a_table_on_a_terminal_is_drawn_by_rich_where_it_is_there(here, stage, before, is_bold):
    (made,) = stage.enqueued("mail")

    shown, _ = on_a_terminal(here, before, "jobs", "list", "--url", "sqlite:///shop.db")

    assert made in shown
    assert ("\x1b[1m" in shown) is is_bold


@pytest.mark.parametrize(("before", "sign"), [("", "━"), (WITHOUT_RICH, "cancel: 1,200")])
def test_a_long_change_shows_its_progress_beside_its_answer(here, stage, before, sign):
    stage.enqueued("mail", 1_200)

    shown, beside = on_a_terminal(
        here, before, "jobs", "cancel", "--queue", "mail", "--yes", "--url", "sqlite:///shop.db"
    )

    assert shown == "1,200 jobs cancelled\r\n"
    assert sign in beside


def test_without_a_terminal_there_is_no_progress(backlane, stage, url):
    stage.enqueued("mail", 1_200)

    result = backlane("jobs", "cancel", "--queue", "mail", "--yes", "--url", url)

    assert result.stderr == ""
