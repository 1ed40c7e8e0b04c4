"""How a command finds the store, and what it says when it cannot."""

from __future__ import annotations

import apsw
import pytest


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no store named"),
        (("--url", "sqlite:///a.db", "--app", "shop:app"), "not both"),
        (("--url", "slqite:///a.db"), "did you mean 'sqlite'?"),
        (("--url", "jobs.db"), "sqlite:///jobs.db"),
        (("--app", "shop.py"), "'shop.py' is a path; name the module: shop:app"),
        (("--app", "sh op"), "use module:attribute"),
        (("--app", "shop:"), "use module:attribute"),
    ],
)
def test_a_store_that_is_named_wrongly_is_wrong_use_told_in_one_line(backlane, args, said):
    result = backlane("queues", "list", *args)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_does_not_exist_is_not_made_by_looking_at_it(backlane, here):
    result = backlane("queues", "list", "--url", "sqlite:///typo.db")

    assert result.exit_code == 1
    assert "no store at typo.db" in result.stderr
    assert not (here / "typo.db").exists()


def test_looking_at_a_foreign_file_leaves_no_tables_in_it(backlane, here):
    apsw.Connection("theirs.db").execute("create table theirs (a)")

    result = backlane("queues", "list", "--url", "sqlite:///theirs.db")

    assert result.exit_code == 1
    assert "theirs.db holds no jobs of backlane" in result.stderr
    tables = apsw.Connection("theirs.db").execute("select name from sqlite_schema").fetchall()
    assert tables == [("theirs",)]


def test_a_store_in_memory_cannot_be_looked_at_from_here(backlane):
    result = backlane("queues", "list", "--url", "memory://")

    assert result.exit_code == 1
    assert "lives inside one process" in result.stderr


def test_a_file_that_is_no_store_is_told_in_one_line(backlane, here):
    (here / "letter.db").write_text("Dear Sir or Madam, " * 400)

    result = backlane("queues", "list", "--url", "sqlite:///letter.db")

    assert result.exit_code == 1
    assert "letter.db" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("app = = 1", "SyntaxError: invalid syntax ("),
        ("import backlane\n\nappp = undefined", "NameError: name 'undefined' is not defined ("),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found' ("),
        ("from backlane import Backlane\nQueue", "NameError"),
        ("raise SystemExit(3)", "SystemExit: 3 ("),
        ("app = 7", "'broken:app' is a int, not a Backlane"),
        (
            "from backlane import Backlane\nmain = Backlane('memory://')",
            "did you mean broken:main?",
        ),
        ("from backlane import Backlane\napp = Backlane('memory://', ques=1)", "no option 'ques'"),
    ],
)
def test_an_application_that_cannot_be_imported_is_told_with_the_reason(
    backlane, here, source, said
):
    (here / "broken.py").write_text(source)

    result = backlane("queues", "list", "--app", "broken:app")

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_import_error_names_the_file_and_the_line(backlane, here):
    (here / "broken.py").write_text("import os\n\nundefined\n")

    result = backlane("queues", "list", "--app", "broken:app")

    assert f"({here / 'broken.py'}, line 3)" in result.stderr


def test_a_module_that_is_not_there_is_told_with_what_to_do(backlane):
    result = backlane("queues", "list", "--app", "shoop:app")

    assert result.exit_code == 2
    assert result.stderr.startswith("backlane: no module 'shoop' for 'shoop:app'; run from")


def test_the_environment_names_the_store_where_no_option_does(backlane, stage, url):
    stage.enqueued("mail")

    by_url = backlane("queues", "list", env={"BACKLANE_URL": url})
    by_app = backlane("queues", "list", env={"BACKLANE_APP": "shop:app"})

    assert "mail" in by_url.stdout
    assert "mail" in by_app.stdout


def test_an_option_goes_before_the_environment(backlane, stage):
    stage.enqueued("mail")

    result = backlane("queues", "list", "--app", "shop:app", env={"BACKLANE_URL": "sqlite:///x.db"})

    assert result.exit_code == 0
    assert "mail" in result.stdout


def test_in_the_environment_the_url_goes_before_the_application(backlane, stage, url):
    stage.enqueued("mail")

    result = backlane("queues", "list", env={"BACKLANE_URL": url, "BACKLANE_APP": "nowhere:app"})

    assert result.exit_code == 0
