"""Schedules over HTTP: put, looked at, changed and run; and who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import shop
from tests.gateway.served import Served, served
from tests.gateway.test_submit import kind

from backlane.gateway import tokens

HOURLY = {"task": "mail.send", "every": 3600, "arguments": {"user_id": 7}}


def put(site: Served, name: str = "hourly", **body: Any) -> Any:
    return site.client.put(f"/v1/schedules/{name}", json=HOURLY | body)


def test_a_schedule_is_put_shown_and_removed(fresh: Served) -> None:
    made = put(fresh)
    shown = fresh.client.get("/v1/schedules/hourly")
    listed = fresh.client.get("/v1/schedules")
    gone = fresh.client.delete("/v1/schedules/hourly")
    again = fresh.client.delete("/v1/schedules/hourly")

    assert made.status_code == shown.status_code == listed.status_code == 200
    assert (made.json()["rule"], made.json()["declared"]) == ("every 1:00:00", False)
    assert made.json()["arguments"] == {"user_id": 7, "template": "hi", "at": None}
    assert len(shown.json()["next"]) == 5
    assert [it["name"] for it in listed.json()["schedules"]] == ["hourly"]
    assert (gone.status_code, gone.content) == (204, b"")
    assert (again.status_code, kind(again)) == (404, "unknown-schedule")


def test_rules_are_said_in_three_ways(fresh: Served) -> None:
    cron = {"every": None, "cron": "0 3 * * *", "tz": "Europe/Paris"}

    assert put(fresh, **cron).json()["rule"] == "0 3 * * * (Europe/Paris)"
    once = put(fresh, every=None, at="2099-01-01T12:00:00+02:00").json()
    assert (once["rule"], once["next"]) == (
        "at 2099-01-01T10:00:00+00:00",
        ["2099-01-01T10:00:00.000Z"],
    )


def test_it_is_paused_and_resumed(fresh: Served) -> None:
    put(fresh)

    paused = fresh.post("/v1/schedules/hourly/pause").json()
    resumed = fresh.post("/v1/schedules/hourly/resume").json()

    assert (paused["paused"], paused["next"]) == (True, [])
    assert (resumed["paused"], len(resumed["next"])) == (False, 1)


def test_it_is_run_now(fresh: Served) -> None:
    put(fresh, priority=8, group="acme")

    answer = fresh.post("/v1/schedules/hourly/run")

    assert (answer.status_code, answer.json()["task"]) == (202, "mail.send")
    job = fresh.client.get(answer.headers["location"]).json()
    assert (job["id"], job["priority"], job["group"]) == (answer.json()["id"], 8, "acme")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"every": None}, ""),
        ({"cron": "0 3 * * *"}, ""),
        ({"every": None, "cron": "61 * * * *"}, "/cron"),
        ({"every": None, "cron": "0 3 * * *", "tz": "Mars"}, "/tz"),
        ({"tz": "UTC"}, "/tz"),
        ({"every": 0.5}, "/every"),
        ({"every": "often"}, "/every"),
        ({"every": None, "at": "2020-01-01T00:00:00Z"}, None),
        ({"every": None, "at": "2099-01-01T00:00:00"}, "/at"),
        ({"task": "mail.sen"}, "/task"),
        ({"arguments": {}}, "/arguments/user_id"),
        ({"arguments": {"user_id": "seven"}}, "/arguments/user_id"),
        ({"catch_up": "some"}, "/catch_up"),
        ({"most": 0}, "/most"),
        ({"jitter": -1}, "/jitter"),
        ({"priority": 10}, "/priority"),
        ({"queue": "nowhere"}, "/queue"),
        ({"every": None, "at": "0001-01-01T00:00:00+14:00"}, None),
        ({"every": None, "at": "9999-12-31T23:59:59-14:00"}, None),
        ({"delay": 5}, ""),
    ],
)
def test_what_cannot_work_is_declined_with_its_place(
    fresh: Served, body: dict[str, Any], where: str | None
) -> None:
    answer = put(fresh, **body)

    assert answer.status_code in (404, 422)
    if where is not None:
        assert kind(answer) == "invalid-arguments"
        assert [error["pointer"].lstrip("#") for error in answer.json()["errors"]] == [where]
    assert fresh.client.get("/v1/schedules").json() == {"schedules": []}


@pytest.mark.parametrize("name", ["a b", "a%2Fb", "x" * 129, "%00"])
def test_what_cannot_name_one_is_declined(fresh: Served, name: str) -> None:
    assert put(fresh, name).status_code in (404, 422)


@pytest.mark.parametrize("verb", ["pause", "resume", "run"])
def test_an_unknown_schedule_is_not_found(fresh: Served, verb: str) -> None:
    put(fresh)

    answer = fresh.post(f"/v1/schedules/hourl/{verb}")

    assert (answer.status_code, kind(answer)) == (404, "unknown-schedule")
    assert "did you mean 'hourly'?" in answer.json()["detail"]


# -- who may --


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Ask as the holder of a token would."""
    file = tmp_path / "tokens.toml"
    scopes = {
        "all": ["read", "operate", "submit"],
        "reader": ["read"],
        "mail": ["read:mail.send", "operate:mail.send", "submit:mail.send"],
        "other": ["read:nothing", "operate:nothing", "submit:nothing"],
        "operator": ["read", "operate"],
    }
    secrets = {name: tokens.add(file, name, allowed) for name, allowed in scopes.items()}
    with shop(tmp_path / "jobs.db") as app, served(app, tokens=file) as site:

        def ask(who: str, method: str, path: str = "", body: object = None) -> Any:
            headers = {"Authorization": f"Bearer {secrets[who]}"}
            return site.client.request(method, f"/v1/schedules{path}", json=body, headers=headers)

        yield ask


def test_a_scope_may_be_narrowed_to_the_task(guarded: Callable[..., Any]) -> None:
    assert guarded("mail", "PUT", "/hourly", HOURLY).status_code == 200
    assert guarded("mail", "POST", "/hourly/run").status_code == 202
    assert [len(guarded(who, "GET").json()["schedules"]) for who in ("mail", "other")] == [1, 0]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/run")):
        assert guarded("other", method, f"/hourly{path}").status_code == 403


def test_to_put_takes_the_right_to_operate_and_to_submit(guarded: Callable[..., Any]) -> None:
    for who, right in (("reader", 403), ("operator", 403), ("other", 403), ("all", 200)):
        assert guarded(who, "PUT", "/hourly", HOURLY).status_code == right
    assert guarded("operator", "POST", "/hourly/run").status_code == 403
    assert guarded("operator", "POST", "/hourly/pause").status_code == 200


def test_a_schedule_of_another_task_is_not_put_over(guarded: Callable[..., Any]) -> None:
    guarded("all", "PUT", "/hourly", HOURLY)

    answer = guarded("other", "PUT", "/hourly", {"task": "nothing", "every": 60})

    assert answer.status_code == 403
