"""The pytest plug-in, and what it costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys

from backlane import Backlane, State


def test_the_fixture_puts_an_application_under_test(app: Backlane, backlane_testing) -> None:
    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    t = backlane_testing(app)
    job = add.enqueue(1, 2)
    t.drain()

    assert (job.state, job.result()) == (State.SUCCEEDED, 3)
    assert app.engine is t.engine


def test_the_fixture_takes_several_applications(app: Backlane, backlane_testing) -> None:
    other = Backlane("sqlite:////nowhere/else.db")

    first, second = backlane_testing(app), backlane_testing(other)

    assert first.engine is not second.engine


pytest_plugins = ["pytester"]


def test_the_fixture_ends_with_its_test(pytester) -> None:
    pytester.makepyfile(
        """
        from backlane import Backlane
        from backlane.testing import testing

        app = Backlane("sqlite:////nowhere/at/all.db")

        @app.task(name="note")
        def note() -> None: ...

        def test_one(backlane_testing):
            t = backlane_testing(app)
            note.enqueue()
            assert len(t.drain()) == 1

        def test_two(backlane_testing):
            assert backlane_testing(app).jobs() == []

        def test_three():
            assert app.engine.url != "memory://"

        def test_four():
            with testing(app) as t:
                note.enqueue()
                t.assert_enqueued(note)
        """
    )

    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


def test_a_run_that_does_not_use_the_plug_in_imports_none_of_what_it_needs() -> None:
    code = "import sys, backlane.testing.fixtures; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "backlane.testing.fixtures" in loaded
    unwanted = ("backlane.testing.kit", "backlane.worker", "backlane.engine.memory", "apsw")
    assert not [name for name in loaded if name.startswith(unwanted)]
