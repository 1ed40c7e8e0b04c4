"""Scripts as they are sent."""

from __future__ import annotations

import pytest

from backlane.engine.redis.append import append
from backlane.engine.redis.lease import claim, settle
from backlane.engine.redis.store.script import Script, folded

SCRIPTS = [append.APPEND, append.APPEND_PLAIN, claim.CLAIM, settle.SETTLE, settle.TURN]


def test_names_in_capitals_become_the_numbers_they_stand_for():
    text = "local ONE, FAR = 1, 2 ^ 43 -- why\nreturn row[ONE] + FAR, 'ONE', it.ONES -- ONE"

    assert folded(text) == "\nreturn row[(1)] + (2 ^ 43), 'ONE', it.ONES "


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sent_by_its_digest_and_in_full_where_it_is_not_known(script: Script):
    short, whole = script.by_digest("key", b"\x92\xc0\xc0"), script.in_full("key", b"\x92\xc0\xc0")

    assert script.digest.encode() in short
    assert len(short) < 120 < len(whole)
    assert short.endswith(b"$3\r\n\x92\xc0\xc0\r\n")
    assert whole.endswith(b"$3\r\n\x92\xc0\xc0\r\n")
