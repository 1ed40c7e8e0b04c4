"""What queues are called at a broker."""

from __future__ import annotations

import pytest

from backlane.engine.transports.name import checked_prefix, logical, physical
from backlane.errors import BadOption
from backlane.model.job import Lane


@pytest.mark.parametrize("queue", ["mail", "mail.exclusive", "a:b-c_d", "1"])
@pytest.mark.parametrize("lane", Lane)
def test_a_name_leads_back_to_its_queue(queue: str, lane: Lane) -> None:
    assert logical("shop", physical("shop", queue, lane)) == (queue, lane)


def test_a_name_begins_with_the_prefix_and_the_version_of_the_topology() -> None:
    assert physical("shop", "mail") == "shop.1.mail"
    assert physical("shop", "mail", Lane.EXCLUSIVE) == "shop.1.mail~exclusive"


def test_what_others_named_is_not_ours() -> None:
    assert logical("shop", "mail") is None
    assert logical("shop", "other.1.mail") is None
    assert logical("shop", "shop.1.") is None


@pytest.mark.parametrize("prefix", ["", "a b", "a.b", "ä", "x" * 33])
def test_a_prefix_that_could_not_stand_before_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(BadOption, match="prefix="):
        checked_prefix(prefix)
