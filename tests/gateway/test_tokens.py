"""Tokens: who may call, for what; and the file they are in."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.conftest import shop
from tests.gateway.served import Served, served
from tests.gateway.test_submit import kind

from backlane.errors import BadOption
from backlane.gateway import tokens
from backlane.gateway.tokens import SCOPES, Token, Tokens


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


class Time:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


# -- the file --


def test_the_secret_is_not_in_the_file(file: Path):
    secret = tokens.add(file, "billing", ["submit"])

    assert secret.startswith("blt_")
    assert len(secret) == len("blt_") + 43  # 32 random bytes
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_is_found_by_its_secret_alone(file: Path):
    tokens.add(file, "other", ["read"])
    secret = tokens.add(file, "billing", ["submit", "read:mail"])
    known = Tokens(file)

    found = known.found(secret)

    assert found is not None
    assert (found.name, found.scopes) == ("billing", ("submit", "read:mail"))
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), "ü", "\ud800", found.sha256):
        assert known.found(wrong) is None


def test_adding_keeps_what_is_there(file: Path):
    secrets = [tokens.add(file, name, ["read"]) for name in ("a", "b", "c")]

    known = Tokens(file)

    assert [known.found(secret).name for secret in secrets] == ["a", "b", "c"]  # type: ignore[union-attr]


def test_a_removed_token_opens_nothing_any_more(file: Path):
    secret = tokens.add(file, "a", ["read"])
    tokens.add(file, "b", ["read"])

    tokens.remove(file, "a")

    assert Tokens(file).found(secret) is None
    assert [it.name for it in tokens.read(file)] == ["b"]


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("a", ["submit"]),
        ("", ["read"]),
        ('a"', ["read"]),
        ("b", []),
        ("b", ["sumbit"]),
        ("b", ["read:"]),
    ],
)
def test_a_token_that_cannot_be_is_refused(file: Path, name: str, scopes: list[str]):
    tokens.add(file, "a", ["read"])
    before = file.read_text()

    with pytest.raises(BadOption):
        tokens.add(file, name, scopes)

    assert file.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "token = 3",
        "[[token]]\nname = 'a'",
        "[[token]]\nname = 'a'\nsha256 = 'x'\nscopes = []",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['all']",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['read']\nsecret = 'x'",
        "[[",
        "\0",
    ],
)
def test_a_file_that_is_no_list_of_tokens_is_refused(file: Path, text: str):
    file.write_text(text)

    with pytest.raises(BadOption, match="tokens"):
        Tokens(file)


def test_a_file_that_is_missing_or_open_to_all_is_refused(file: Path):
    with pytest.raises(BadOption, match="backlane token add"):
        Tokens(file)

    tokens.add(file, "a", ["read"])
    file.chmod(0o666)

    with pytest.raises(BadOption, match="chmod 600"):
        Tokens(file)


def test_a_changed_file_is_read_again(file: Path):
    clock = Time()
    tokens.add(file, "a", ["read"])
    known = Tokens(file, clock)
    secret = tokens.add(file, "b", ["read"])

    before = known.found(secret)
    clock.now = 1.5
    after = known.found(secret)

    assert before is None
    assert after is not None


def test_a_file_that_broke_leaves_the_tokens_as_they_were(file: Path):
    clock = Time()
    secret = tokens.add(file, "a", ["read"])
    known = Tokens(file, clock)

    file.write_text("[[")
    clock.now = 2

    assert known.found(secret) is not None


def test_a_file_that_can_be_read_again_is(file: Path, caplog: pytest.LogCaptureFixture):
    secret, clock = tokens.add(file, "billing", ["submit"]), Time()
    known = Tokens(file, clock)

    file.write_text("")
    file.chmod(0o666)  # so it is not read, and what was read before stays in force
    for clock.now in (2.0, 4.0, 6.0):
        assert known.found(secret) is not None
    file.chmod(0o600)  # its content and the time of that are the same
    clock.now = 8.0

    assert known.found(secret) is None
    assert len(caplog.records) == 1


def test_a_file_keeps_its_mode_and_the_link_to_it(file: Path, tmp_path: Path):
    tokens.add(file, "billing", ["submit"])
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)

    tokens.add(link, "shop", ["read"])
    tokens.remove(link, "billing")

    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [it.name for it in tokens.read(file)] == ["shop"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_root_changes_stays_its_owners(file: Path):
    tokens.add(file, "billing", ["submit"])
    os.chown(file, 12_345, 12_346)

    tokens.remove(file, "billing")

    assert (file.stat().st_uid, file.stat().st_gid) == (12_345, 12_346)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_gone_lets_nobody_in(file: Path):
    clock = Time()
    secret = tokens.add(file, "a", ["read"])
    known = Tokens(file, clock)

    file.unlink()
    clock.now = 2

    assert known.found(secret) is None


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_itself_alone(scope: str):
    wide, narrow = Token("a", "", (scope,)), Token("a", "", (f"{scope}:mail",))

    for other in SCOPES:
        assert wide.allows(other) == (other == scope)
        assert not narrow.allows(other)
        assert narrow.allows(other, ("mail",)) == (other == scope)
        assert not narrow.allows(other, ("mai", "mails", "x"))


# -- at the door --


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    """A gateway with tokens, and their secrets by name."""
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "tokens.toml"
    given = {
        "all": list(SCOPES),
        "submitter": ["submit"],
        "mailer": ["submit:mail.send", "read:mail"],
        "reader": ["read"],
        "sender": ["send:orders"],
        "receiver": ["receive:orders"],
        "operator": ["operate:default"],
    }
    secrets = {name: tokens.add(file, name, scopes) for name, scopes in given.items()}
    with shop(folder / "jobs.db") as app, served(app, tokens=file) as made:
        app.tasks["nothing"].enqueue()
        made.app.messages("orders").send(b"x")
        yield made, secrets


def ask(guarded: tuple[Served, dict[str, str]], who: str, method: str, path: str) -> int:
    site, secrets = guarded
    body = {"json": {"arguments": {"user_id": 1}}} if path.endswith("/mail.send/jobs") else {}
    headers = {"Authorization": f"Bearer {secrets[who]}"}
    answer = site.client.request(method, path, headers=headers, **body)
    if answer.status_code == 403:
        assert kind(answer) == "forbidden"
        assert f'scope="{answer.json()["scope"]}"' in answer.headers["www-authenticate"]
    return int(answer.status_code)


@pytest.mark.parametrize(
    ("who", "method", "path", "expected"),
    [
        ("all", "POST", "/v1/tasks/nothing/jobs", 202),
        ("submitter", "POST", "/v1/tasks/nothing/jobs", 202),
        ("mailer", "POST", "/v1/tasks/nothing/jobs", 403),
        ("mailer", "POST", "/v1/tasks/mail.send/jobs", 202),
        ("reader", "POST", "/v1/tasks/nothing/jobs", 403),
        ("reader", "POST", "/v1/tasks/none/jobs", 403),
        ("submitter", "POST", "/v1/tasks/none/jobs", 404),
        ("reader", "GET", "/v1/queues", 200),
        ("submitter", "GET", "/v1/queues", 403),
        ("reader", "GET", "/v1/queues/default", 200),
        ("mailer", "GET", "/v1/queues/default", 403),
        ("mailer", "GET", "/v1/queues/mail", 200),
        ("operator", "POST", "/v1/queues/default/resume", 200),
        ("operator", "POST", "/v1/queues/orders/resume", 403),
        ("reader", "POST", "/v1/queues/default/resume", 403),
        ("sender", "POST", "/v1/queues/orders/messages", 202),
        ("sender", "POST", "/v1/queues/post/messages", 403),
        ("sender", "POST", "/v1/queues/orders/receive", 403),
        ("receiver", "POST", "/v1/queues/orders/receive", 200),
        ("receiver", "POST", "/v1/queues/orders/messages", 403),
        ("receiver", "POST", "/v1/queues/post/receive", 403),
    ],
)
def test_a_token_opens_what_its_scopes_name(
    guarded: tuple[Served, dict[str, str]], who: str, method: str, path: str, expected: int
):
    ask(guarded, "all", "POST", "/v1/tasks/mail.send/jobs")

    assert ask(guarded, who, method, path) == expected


@pytest.mark.parametrize(
    ("who", "verb", "expected"),
    [
        ("reader", "", 200),
        ("reader", "/cancel", 403),
        ("operator", "/cancel", 403),
        ("mailer", "", 200),
        ("mailer", "/retry", 403),
        ("submitter", "", 403),
        ("all", "/cancel", 200),
    ],
)
def test_a_narrowed_scope_is_judged_by_the_jobs_own_task_and_queue(
    guarded: tuple[Served, dict[str, str]], who: str, verb: str, expected: int
):
    site, _ = guarded
    job = site.app.tasks["mail.send"].enqueue(1).id
    method = "POST" if verb else "GET"

    assert ask(guarded, who, method, f"/v1/jobs/{job}{verb}") == expected


def test_a_list_holds_only_what_a_token_may_read(guarded: tuple[Served, dict[str, str]]):
    site, secrets = guarded
    ask(guarded, "all", "POST", "/v1/tasks/mail.send/jobs")

    headers = {"Authorization": f"bearer {secrets['mailer']}"}
    listed = site.client.get("/v1/queues", headers=headers).json()["queues"]

    assert [it["name"] for it in listed] == ["mail"]


def test_a_token_narrowed_to_a_task_cannot_reach_another_queue(
    guarded: tuple[Served, dict[str, str]],
):
    site, secrets = guarded

    answer = site.submit(
        "mail.send",
        headers={"Authorization": f"Bearer {secrets['mailer']}"},
        arguments={"user_id": 1},
        queue="tiny",
    )

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Basic x", "Bearer blt_x", "blt_x", "Bearer \xff"]
)
def test_without_a_token_nothing_is_told(guarded: tuple[Served, dict[str, str]], given: str | None):
    site, _ = guarded
    headers = {} if given is None else {"Authorization": given.encode("latin-1").strip()}

    for path in ("/v1/tasks/nothing/jobs", "/v1/queues/default/pause"):
        answer = site.client.post(path, headers=headers)
        assert (answer.status_code, kind(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer realm=")


def test_idempotency_keys_of_two_tokens_do_not_meet(guarded: tuple[Served, dict[str, str]]):
    site, secrets = guarded
    sent = [
        site.submit(
            "nothing",
            headers={"Authorization": f"Bearer {secrets[who]}", "Idempotency-Key": "same"},
        )
        for who in ("all", "submitter", "all")
    ]

    ids = [answer.json()["id"] for answer in sent]
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]


def test_a_token_that_is_removed_while_the_gateway_runs_is_refused(tmp_path: Path):
    file = tmp_path / "tokens.toml"
    secret = tokens.add(file, "a", ["submit"])
    headers = {"Authorization": f"Bearer {secret}"}

    with shop(tmp_path / "jobs.db") as app, served(app, tokens=file) as site:
        before = site.submit("nothing", headers=headers).status_code
        tokens.remove(file, "a")
        ends = time.monotonic() + 10
        while site.submit("nothing", headers=headers).status_code != 401:
            assert time.monotonic() < ends
            time.sleep(0.1)

    assert before == 202


# -- without tokens --


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 202),
        ({"Host": "localhost:8000"}, 202),
        ({"Host": "[::1]:8000"}, 202),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, 202),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "none"}, 202),
        ({"X-Forwarded-For": "203.0.113.9"}, 403),
        ({"Forwarded": "for=203.0.113.9"}, 403),
        ({"X-Real-IP": "203.0.113.9"}, 403),
    ],
)
def test_without_tokens_only_programs_of_this_machine_are_let_in(
    site: Served, headers: dict[str, str], expected: int
):
    answer = site.client.post("/v1/tasks/nothing/jobs", headers=headers)

    assert answer.status_code == expected
