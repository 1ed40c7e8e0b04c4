"""What is said of an outage: once for a process, however many of its parts meet it."""

from __future__ import annotations

import logging

import pytest

from backlane.engine.brokered.trouble import Notice, Trouble


def test_an_outage_is_told_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    notice = Notice("RabbitMQ")
    troubles = [Trouble(notice) for _ in range(5)]
    with caplog.at_level(logging.WARNING, "backlane.broker"):
        for _ in range(5):
            for trouble in troubles:
                trouble.begin(OSError("refused"), 0.0)
        troubles[0].leave()  # nobody claims there any more
        for trouble in troubles[1:]:
            trouble.end()

    assert [it.getMessage() for it in caplog.records] == [
        "RabbitMQ is in trouble (refused); jobs are kept, and it is tried again",
        "RabbitMQ is well again",
    ]


def test_a_restart_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(Notice("RabbitMQ"))
    trouble.begin(OSError("refused"), 0.0)
    trouble.end()

    assert not caplog.records
