"""`backlane serve` and `backlane token` as they are run: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.gateway.served import read_all, status

SHOP = """
import time

from backlane import Backlane

app = Backlane("sqlite:///jobs.db")

@app.task
def nothing() -> None: ...
"""

PATIENCE = 20.0
# As if these libraries were not installed.
WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None
from backlane.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def command(*words: str, without: tuple[str, ...] = ()) -> list[str]:
    if without:
        return [sys.executable, "-c", WITHOUT.format(names=without), *words]
    return [sys.executable, "-m", "backlane", *words]


def run(here: Path, *words: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, without=without),
        cwd=here,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def serving(
    here: Path, *words: str, without: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `backlane serve` within the block; yield the process and its URL."""
    process = subprocess.Popen(
        command("serve", "shop:app", "--port", "0", *words, without=without),
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), process.stderr and process.stderr.read()
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_prints_where_it_listens_and_ends_with_sigterm(here: Path):
    with serving(here) as (process, url):
        answer = httpx2.post(f"{url}/v1/tasks/shop.nothing/jobs")
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE) == 0
    assert answer.status_code == 202


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_connections_are_open(here: Path, number: signal.Signals):
    with serving(here) as (process, url):
        port = int(url.rpartition(":")[2])
        client = httpx2.Client(base_url=url, timeout=PATIENCE)
        job = client.post("/v1/tasks/shop.nothing/jobs").headers["location"]
        idle = socket.create_connection(("127.0.0.1", port))
        answers: list[int] = []
        stream = client.stream("GET", f"{job}/events")
        with stream as events:
            poll = threading.Thread(
                target=lambda: answers.append(httpx2.get(f"{url}{job}?wait=60").status_code)
            )
            poll.start()
            time.sleep(0.5)
            began = time.monotonic()
            process.send_signal(number)
            events.read()

            assert process.wait(PATIENCE) == 0
        took = time.monotonic() - began
        poll.join(PATIENCE)
        idle.close()

    assert answers == [200]
    assert took < 5


def test_a_second_signal_ends_it_at_once(here: Path):
    with serving(here, "--grace", "60") as (process, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as slow:
            slow.sendall(
                b"POST /v1/tasks/shop.nothing/jobs HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None, "the request under way was not waited for"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)

            process.wait(PATIENCE)
    assert time.monotonic() - began < 5


def test_a_request_under_way_is_answered_before_it_ends(here: Path):
    body = b'{"arguments": {}}'
    with serving(here) as (process, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as slow:
            slow.sendall(
                b"POST /v1/tasks/shop.nothing/jobs HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            slow.sendall(body)
            answer = read_all(slow)

        assert process.wait(PATIENCE) == 0
    assert status(answer) == 202


def test_with_h11_and_plain_asyncio_it_serves_as_well(here: Path):
    with serving(here, without=("httptools", "uvloop")) as (process, url):
        port = int(url.rpartition(":")[2])
        good = httpx2.post(f"{url}/v1/tasks/shop.nothing/jobs").status_code
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"GE\0T / HTTP/1.1\r\n\r\n")
            bad = read_all(connection)
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE) == 0
    assert good == 202
    assert status(bad) == 400
    assert b"application/problem+json" in bad


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_without_tokens_it_refuses_to_listen_elsewhere(here: Path, host: str):
    done = run(here, "serve", "shop:app", "--host", host, "--port", "0")

    assert done.returncode == 2
    assert "without tokens" in done.stderr
    assert "backlane token add" in done.stderr


def test_with_tokens_it_listens_anywhere(here: Path):
    secret = run(here, "token", "add", "me", "--scope", "submit").stdout.strip()

    with serving(here, "--host", "0.0.0.0", "--tokens", "tokens.toml") as (_, url):
        port = url.rpartition(":")[2]
        path = f"http://127.0.0.1:{port}/v1/tasks/shop.nothing/jobs"
        closed = httpx2.post(path)
        opened = httpx2.post(path, headers={"Authorization": f"Bearer {secret}"})

    assert (closed.status_code, opened.status_code) == (401, 202)


def test_what_cannot_be_served_is_said_in_a_line(here: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, told in (
            (("shop:app", "--port", port), "use another --port"),
            (("shop:app", "--host", "192.0.2.1.5", "--tokens", "t"), "backlane token add"),
            (("shop:none",), "shop"),
            (("shop:app", "--port", "70000"), "--port"),
            (("shop:app", "--max-body", "0"), "--max-body"),
        ):
            done = run(here, "serve", *words)
            assert done.returncode in (1, 2), done.stderr
            assert told in done.stderr
            assert "Traceback" not in done.stderr
            assert done.stderr.count("\n") <= 2, done.stderr


def test_without_its_libraries_it_says_what_to_install(here: Path):
    done = run(here, "serve", "shop:app", without=("starlette", "uvicorn"))

    assert done.returncode == 1
    assert "pip install 'backlane[web]'" in done.stderr


# -- backlane token --


def test_a_token_is_added_listed_and_removed(here: Path):
    added = run(here, "token", "add", "billing", "--scope", "submit", "--scope", "read:mail")
    listed = run(here, "token", "list")
    removed = run(here, "token", "remove", "billing")
    empty = json.loads(run(here, "token", "list", "--json").stdout)

    assert added.stdout.startswith("blt_")
    assert added.stdout.count("\n") == 1
    assert "submit read:mail" in listed.stdout
    assert added.stdout.strip() not in listed.stdout
    assert removed.returncode == 0
    assert empty == []
    assert os.stat(here / "tokens.toml").st_mode & 0o777 == 0o600


def test_a_token_is_added_for_programs(here: Path):
    done = run(here, "token", "add", "a", "--scope", "read", "--file", "other.toml", "--json")

    assert set(json.loads(done.stdout)) == {"name", "scopes", "secret"}
    assert (here / "other.toml").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("add", "a"),
        ("add", "a", "--scope", "sumbit"),
        ("add", "a b", "--scope", "read"),
        ("remove", "a"),
        ("list", "--file", "none.toml"),
    ],
)
def test_a_token_that_cannot_be_is_refused_in_a_line(here: Path, words: tuple[str, ...]):
    done = run(here, "token", *words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("backlane: ")
