"""What becomes of an answer that nobody takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMAND = f"{sys.executable} -m backlane jobs list --url sqlite:///shop.db"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=False)


def test_a_reader_that_leaves_early_is_no_error(stage):
    stage.enqueued("mail", 20)
    ours, theirs = os.pipe()
    os.close(ours)

    done = subprocess.run(
        COMMAND.split(), stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(sys.platform == "darwin", reason="it has no such device")
def test_a_full_disk_is_told_in_one_line(stage):
    done = shell(f"{COMMAND} > /dev/full")

    assert done.returncode == 1
    assert done.stderr == "backlane: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_streams_that_were_closed_are_no_fault(stage, closed):
    stage.enqueued("mail", 2)

    assert shell(f"{COMMAND} {closed}").returncode == 0


def test_help_that_is_not_read_to_its_end_is_no_error(here):
    done = shell(f"{sys.executable} -m backlane --help | true")

    assert done.stderr == ""
