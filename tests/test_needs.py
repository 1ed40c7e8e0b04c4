"""What a broker alone cannot do is refused where it is written, with the URL to write."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from backlane import Backlane, Every, Limit, NotSupported, Queue, Unique, chain
from backlane.errors import BadOption

URL = "amqp://ann:sekret@127.0.0.1:1/"
REMEDY = r"write amqp://ann:\*\*\*@127\.0\.0\.1:1/\?ledger=postgresql://"


def plain(n: int = 0) -> int:
    return n


def task(app: Backlane, **options: Any) -> Any:
    return app.task(**options)(plain)


@pytest.fixture
def app() -> Backlane:
    return Backlane(URL)


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 7},
        {"resource": "stripe"},
        {"limit": Limit(concurrency=1)},
        {"unique": Unique()},
        {"tags": ["a"]},
        {"keep": 60},
        {"keep_latest": True},
        {"keep_result": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_a_task(app: Backlane, options: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match=REMEDY) as refused:
        task(app, **options)

    assert f"@app.task({next(iter(options))}=…)" in str(refused.value)
    assert "sekret" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"key": "a"},
        {"unique": Unique()},
        {"idempotency_key": "a"},
        {"connection": object()},
        {"priority": 1},
        {"tags": ["a"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_an_enqueue(app: Backlane, options: dict[str, Any]) -> None:
    made = task(app)

    with pytest.raises(NotSupported, match=REMEDY):
        made.using(**options)


@pytest.mark.parametrize(
    "queue",
    [
        Queue("mail", max_wait=5),
        Queue("mail", group_share=0.5),
        Queue("mail", limit=Limit(concurrency=1)),
        Queue("mail", fair=True),
        Queue("mail", ordering="group"),
    ],
    ids=["max_wait", "group_share", "limit", "fair", "ordering"],
)
def test_what_a_queue_asks_for(queue: Queue) -> None:
    with pytest.raises(NotSupported, match=REMEDY):
        Backlane(URL, queues=[queue])


def test_limits_and_schedules(app: Backlane) -> None:
    with pytest.raises(NotSupported, match=REMEDY):
        Backlane(URL, limits={"stripe": Limit(concurrency=1)})
    with pytest.raises(NotSupported, match=REMEDY):
        app.schedule(Every(60))


@pytest.mark.parametrize(
    "call",
    [
        lambda app, plain: app.job(str(uuid.UUID(int=7 << 76 | 2 << 62))),
        lambda app, plain: app.queue("default").pause(),
        lambda app, plain: app.limits.list(),
        lambda app, plain: app.schedules.list(),
        lambda app, plain: app.resource("stripe").close(),
    ],
    ids=["job", "pause", "limits", "schedules", "resource"],
)
def test_a_call_says_so_before_it_reaches_for_the_broker(
    app: Backlane, call: Callable[[Backlane, Any], object]
) -> None:
    made = task(app)

    with pytest.raises(NotSupported, match=REMEDY):
        call(app, made)


def test_a_workflow_is_refused_when_it_is_enqueued(app: Backlane) -> None:
    made = task(app)

    with pytest.raises(NotSupported, match=REMEDY):
        chain(made.node(1), made.node()).enqueue()


def test_a_task_that_may_outlast_the_brokers_patience(app: Backlane) -> None:
    task(app, timeout=(60, 900))

    with pytest.raises(BadOption, match="half of that time are 900 s"):
        task(app, name="long", timeout=(60, 901))


def test_what_asks_for_nothing_passes(app: Backlane) -> None:
    made = task(app, priority=5, keep_result=False, timeout=30, expires=60)

    made.using(group="acme", delay=5, headers={"a": "b"}, id=uuid.UUID(int=7 << 76 | 2 << 62))
    Backlane(URL, queues=[Queue("mail", max_jobs=10, max_bytes=1_000, runs_in="process")])


def test_with_a_ledger_all_of_it_passes() -> None:
    app = Backlane(transport=URL, ledger="sqlite:///jobs.db", limits={"a": Limit(concurrency=1)})

    task(app, priority=7, limits=["a"], unique=Unique(), timeout=(60, 9_000))

    assert app.url == f"{URL}?ledger=sqlite:///jobs.db"
