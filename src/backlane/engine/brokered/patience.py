"""Patience: how long a brokered engine waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Durations in seconds; tests have shorter ones."""

    # Before an offer that nobody has seen arrive can be void: twice as long as a publish takes.
    offer: float = 20.0
    held: float = 5.0  # the longest that a message is in hand and in nobody's use
    settled: float = 8.0  # more than `held`: what others had in hand has shown itself again
    inexact: float = 60.0  # the same where a broker counts what it has about a minute late
    unordered: float = 300.0  # the same where a broker shows some messages minutes late
    poll: float = 1.0  # between two looks at the ledger, without a ring
    cut_off: float = 2.0  # without the broker, until workers claim from the ledger alone
    publish: float = 10.0
    closing: float = 2.0  # for giving deliveries back

    @property
    def offer_ms(self) -> int:
        return int(self.offer * 1000)
