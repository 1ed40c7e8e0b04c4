"""Patience: how long a brokered engine waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Durations in seconds; tests have shorter ones."""

    offer: float = 60.0  # before an offer that nobody has seen arrive can be void
    held: float = 10.0  # the longest that a message is in hand and in nobody's use
    settled: float = 15.0  # more than `held`: what others had in hand has shown itself again
    unordered: float = 300.0  # the same where a broker shows some messages minutes late
    poll: float = 1.0  # between two looks at the ledger, without a ring
    cut_off: float = 2.0  # without the broker, until workers claim from the ledger alone
    publish: float = 10.0
    closing: float = 2.0  # for giving deliveries back

    @property
    def offer_ms(self) -> int:
        return int(self.offer * 1000)
