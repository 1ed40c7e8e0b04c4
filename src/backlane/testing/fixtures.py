"""The pytest plug-in: `backlane_testing`, which puts applications under test.

    def test_mail(backlane_testing):
        t = backlane_testing(app)
        send_mail.enqueue(7)
        t.drain()

Pytest imports this file in every run, so it imports nothing before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from backlane.testing.kit import Testing


@pytest.fixture
def backlane_testing() -> Iterator[Callable[..., Testing]]:
    """Return a function that takes an application and puts it under test until the end.

    It is `backlane.testing.testing` with the end of the test as the end of the block.
    """
    from backlane.testing.kit import testing

    with ExitStack() as tests:

        def under_test(app: Any, **options: Any) -> Testing:
            return tests.enter_context(testing(app, **options))

        yield under_test
