"""Jobs are found over HTTP, by all that is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import shop
from tests.gateway.served import Served, served
from tests.gateway.test_submit import kind

from backlane.gateway import tokens


@pytest.fixture
def filled(fresh: Served) -> Served:
    """Some jobs: of two tasks, one with tags."""
    for number in range(5):
        fresh.submit("mail.send", arguments={"user_id": number}, tags=["billing"], group="acme")
    fresh.submit("nothing", key="k")
    return fresh


def found(site: Served, query: str = "") -> list[str]:
    answer = site.client.get(f"/v1/jobs{query}")
    assert answer.status_code == 200, answer.text
    return [job["task"] for job in answer.json()["jobs"]]


def test_jobs_are_found_by_what_is_known_of_them(filled: Served) -> None:
    assert found(filled) == ["nothing", *["mail.send"] * 5]
    assert found(filled, "?tag=billing") == ["mail.send"] * 5
    assert found(filled, "?key=k") == found(filled, "?task=nothing") == ["nothing"]
    assert found(filled, "?group=acme&queue=mail&state=ready&state=failed") == ["mail.send"] * 5
    assert found(filled, "?state=failed") == found(filled, "?text=boom") == []
    assert len(found(filled, "?since=2020-01-01T00:00:00Z")) == 6
    assert found(filled, "?before=2020-01-01T00:00:00Z") == []
    for nobodys in ("01890a5d-ac96-774b-bcce-b302099a8057", "e3e70682-c209-1cac-a29f-6fbed82c07cd"):
        assert found(filled, f"?workflow={nobodys}") == []


def test_a_job_tells_its_tags(filled: Served) -> None:
    (job,) = filled.client.get("/v1/jobs?tag=billing&limit=1").json()["jobs"]

    assert (job["tags"], job["workflow"]) == (["billing"], None)


def test_what_is_found_comes_in_pages(filled: Served) -> None:
    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        after = f"&cursor={cursor}" if cursor else ""
        page: dict[str, Any] = filled.client.get(f"/v1/jobs?tag=billing&limit=2{after}").json()
        assert len(page["jobs"]) <= 2
        ids += [job["id"] for job in page["jobs"]]
        cursor = page["next"]

    assert len(set(ids)) == len(ids) == 5


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("state=done", "/state"),
        ("reason=bad", "/reason"),
        ("since=yesterday", "/since"),
        ("since=2030-01-01T00:00:00", "/since"),
        ("workflow=7", "/workflow"),
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("cursor=xyz", "/cursor"),
        ("tags=billing", "/tags"),
        ("delay=5", "/delay"),
    ],
)
def test_what_cannot_be_asked_is_declined(filled: Served, query: str, where: str) -> None:
    answer = filled.client.get(f"/v1/jobs?{query}")

    assert (answer.status_code, kind(answer)) == (422, "invalid-arguments")
    assert [error["pointer"].lstrip("#") for error in answer.json()["errors"]] == [where]


def test_odd_words_find_nothing_and_harm_nothing(filled: Served) -> None:
    for word in ("%00", "%25", "'%20or%201=1", "%F0%9F%92%A9", "x" * 5_000, "%ED%A0%80"):
        for field in ("tag", "key", "group", "text", "queue", "task"):
            assert filled.client.get(f"/v1/jobs?{field}={word}").status_code in (200, 414, 422, 431)
    assert len(found(filled)) == 6


def test_a_narrowed_token_finds_what_it_may_read(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    secret = tokens.add(file, "mail", ["read:mail", "submit"])
    with shop(tmp_path / "jobs.db") as app, served(app, tokens=file) as site:
        asking = {"Authorization": f"Bearer {secret}"}
        site.submit("mail.send", headers=asking, arguments={"user_id": 7})

        def status(query: str) -> int:
            return int(site.client.get(f"/v1/jobs{query}", headers=asking).status_code)

        assert status("?queue=mail") == 200
        assert [status(query) for query in ("", "?queue=orders", "?tag=x")] == [403, 403, 403]
