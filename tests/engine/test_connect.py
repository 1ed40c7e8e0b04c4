"""URL to engine: what is missing is named with its remedy, and no password is shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backlane.engine.connect import connect, shown
from backlane.errors import BacklaneError
from backlane.model.clock import SystemClock

MISSING = """
import sys
sys.modules[{library!r}] = None
from backlane.cli import main
main(["queues", "list", "--url", {url!r}])
"""


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [
        ("psycopg", "postgresql://ann:sekret@db/jobs", "backlane[postgres]"),
        ("hiredis", "redis://:sekret@db/0", "backlane[redis]"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library: str, url: str, extra: str) -> None:
    code = MISSING.format(library=library, url=url)

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 1
    assert f"pip install '{extra}'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "sekret" not in ended.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgrse://ann:sekret@db/jobs",
        "nosuch://db/jobs?password=sekret",
        "postgresql://ann:sekret@db/jobs?schma=x",
        "postgresql://ann@db/jobs?password=sekret&schma=x",
        "postgresql://ann:sekret@db/jobs?pool=many",
        "redis://:sekret@db/0?namspace=x",
        "redis://ann:sekret@db/zero",
        "redis+sentinel://ann:sekret@db/?namspace=x",
        "memory://ann:sekret@db",
    ],
)
def test_no_password_is_shown_of_a_url_that_is_refused(url: str) -> None:
    with pytest.raises(BacklaneError) as refused:
        connect(url, SystemClock())

    assert "sekret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://ann:sekret@db/jobs?schema=x", "redis://:sekret@db/0", "rediss://a:sekret@db"],
)
def test_an_engine_says_no_password(url: str) -> None:
    assert "sekret" not in connect(url, SystemClock()).url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///jobs.db?durability=normal", "sqlite:///jobs.db?durability=normal"),
        ("postgresql://ann:sekret@db/jobs", "postgresql://ann:***@db/jobs"),
        ("postgresql://ann@db/jobs?schema=a", "postgresql://ann@db/jobs?schema=a"),
        ("redis://:sekret@db/0", "redis://:***@db/0"),
        ("redis://db/0?sentinel_password=sekret", "redis://db/0?sentinel_password=***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, told: str) -> None:
    assert shown(url) == told
