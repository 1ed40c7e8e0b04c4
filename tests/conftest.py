"""What tests of all parts share: a URL of each kind of store, empty and of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.contract import engines

from backlane.model.clock import SystemClock


@pytest.fixture(params=engines.MAKERS, ids=lambda maker: maker.name)
def every_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store of each engine."""
    with request.param.place(tmp_path, SystemClock()) as url:
        yield url


@pytest.fixture(params=engines.SHARED, ids=lambda maker: maker.name)
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store of each engine that several processes can share."""
    with request.param.place(tmp_path, SystemClock()) as url:
        yield url
