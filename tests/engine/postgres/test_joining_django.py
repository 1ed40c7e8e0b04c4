"""A database of Django takes a job along, by its alias or its connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection as default_connection
from django.db import connections, transaction
from tests.engine.postgres.shop import ORDER, Shop, opened
from tests.engine.postgres.site import django_on

from backlane import Backlane, WrongUse
from backlane.worker import Worker


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    other = tmp_path_factory.mktemp("django") / "other.db"
    with opened() as made, django_on(made.url, other):
        yield made


@pytest.mark.parametrize("given", ["alias", "connection", "default"])
@pytest.mark.parametrize("commits", [True, False])
def test_atomic_takes_its_job_along(shop: Shop, commits: bool, given: str):
    number = shop.number()
    chosen: dict[str, Any] = {
        "alias": "default",
        "connection": connections["default"],
        "default": default_connection,
    }
    with transaction.atomic():
        with connections["default"].cursor() as cursor:
            cursor.execute(ORDER, [number])
        job = shop.confirm.using(connection=chosen[given]).enqueue(number)
        seen_before = shop.exists(job)
        transaction.set_rollback(not commits)

    assert not seen_before
    assert (shop.exists(job), shop.has(number)) == (commits, commits)


def test_an_inner_block_that_raises_takes_its_job_with_it(shop: Shop):
    def inner() -> None:
        with transaction.atomic():
            gone.append(shop.confirm.using(connection="default").enqueue(2))
            raise ValueError

    gone: list[Any] = []
    with transaction.atomic():
        kept = shop.confirm.using(connection="default").enqueue(1)
        with pytest.raises(ValueError):
            inner()

    assert (shop.exists(kept), shop.exists(gone[0])) == (True, False)


def test_async_code_joins_within_sync_to_async(shop: Shop):
    def work() -> Any:
        with transaction.atomic():
            return shop.confirm.using(connection="default").enqueue(1)

    async def main() -> Any:
        return await sync_to_async(work)()

    assert shop.exists(asyncio.run(main()))


def test_a_worker_is_told_of_the_commit_at_once(shop: Shop):
    took: list[float] = []
    with Worker(shop.app):
        shop.confirm.enqueue(0).result(timeout=10)
        for number in range(10):
            with transaction.atomic():
                job = shop.confirm.using(connection="default").enqueue(number)
                time.sleep(0.05)
            began = time.monotonic()
            job.result(timeout=10)
            took.append(time.monotonic() - began)

    assert sorted(took)[5] < 0.4, took


# -- what is refused --


def test_outside_of_atomic_is_refused(shop: Shop):
    with pytest.raises(WrongUse, match=r"transaction\.atomic"):
        shop.confirm.using(connection="default").enqueue(1)


def test_a_block_that_can_only_roll_back_is_refused(shop: Shop):
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(WrongUse, match="roll back"):
            shop.confirm.using(connection="default").enqueue(1)


def test_an_unknown_alias_names_the_nearest(shop: Shop):
    with pytest.raises(WrongUse, match="default"):
        shop.confirm.using(connection="defualt").enqueue(1)


def test_a_database_of_another_kind_is_told_of_on_commit(shop: Shop):
    with transaction.atomic(using="other"), pytest.raises(WrongUse, match="on_commit"):
        shop.confirm.using(connection="other").enqueue(1)


def test_jobs_in_a_file_are_told_of_on_commit(shop: Shop, tmp_path: Any):
    app = Backlane(f"sqlite:///{tmp_path}/jobs.db")
    task = app.task(name="nothing")(_nothing)

    with transaction.atomic(using="other"):
        for given in ("other", connections["other"]):
            with pytest.raises(WrongUse, match="on_commit"):
                task.using(connection=given).enqueue()
    app.close()


def _nothing() -> None: ...
