"""`backlane migrate --print`: the SQL, and nothing else."""

from __future__ import annotations

import apsw


def test_the_sql_of_a_file_makes_its_tables(backlane, here) -> None:
    shown = backlane("migrate", "--print", "--url", "sqlite:///new.db")

    memory = apsw.Connection(":memory:")
    memory.execute(shown.output)
    assert memory.table_exists("main", "backlane_job")
    assert not (here / "new.db").exists()


def test_the_sql_for_postgresql_is_shown_without_a_server(backlane, here) -> None:
    shown = backlane(
        "migrate", "--print", "--json", "--url", "postgresql://ann:s3cret@nowhere/shop?schema=jobs"
    )

    assert 'create table \\"jobs\\".job (' in shown.output
    assert "s3cret" not in shown.output


def test_what_needs_no_tables_says_so(backlane, here) -> None:
    assert "no tables" in backlane("migrate", "--print", "--url", "redis://nowhere").output
