"""A transaction on a file that has no tables of ours yet."""

from __future__ import annotations

import apsw
import pytest

from backlane import Backlane, WrongUse


def application(directory) -> Backlane:
    app = Backlane(f"sqlite:///{directory}/shop.db")

    @app.task(name="confirm")
    def confirm(order: int) -> None: ...

    return app


def test_joining_a_file_without_our_tables_says_how_to_make_them(tmp_path):
    """Users were told that the file was damaged."""
    app = application(tmp_path)
    shop = apsw.Connection(str(tmp_path / "shop.db"))
    shop.execute("create table orders (id integer primary key)")

    with pytest.raises(WrongUse, match="backlane migrate --url sqlite:///"), shop:
        app.tasks["confirm"].using(connection=shop).enqueue(1)

    assert not shop.in_transaction


def test_joining_works_once_they_are_made(tmp_path):
    app = application(tmp_path)
    shop = apsw.Connection(str(tmp_path / "shop.db"))
    shop.execute("create table orders (id integer primary key)")
    app.engine.migrate()

    with shop:
        job = app.tasks["confirm"].using(connection=shop).enqueue(1)

    assert job.state == "ready"
