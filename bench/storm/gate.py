"""The gate: one process that callers come to, with what it knows of the queue."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import Enum, auto

from msgspec.structs import replace

from backlane.model.pressure.meter import Meter
from backlane.model.pressure.slots import LOW, Room, SlotLine
from backlane.model.pressure.ticket import checked, signed, ticket
from bench.storm.line import PRIORITY, Line

SAMPLE_MS = 1_000
SECRET = b"storm"


class Rule(Enum):
    """What a gate tells those whom it refuses."""

    SILENT = auto()  # nothing: the caller has its own policy
    NAIVE = auto()  # the same for all: when the line is back at its low mark
    SLOTS = auto()  # a slot of the virtual clock, without a ticket: newcomers may take it
    TICKETS = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller is told."""

    accepted: bool
    retry_after: int | None = None  # whole seconds, as HTTP has it
    ticket: str | None = None


class Gate:
    """One process in front of the queue: the steps of the library's own door."""

    def __init__(self, line: Line, rule: Rule, rng: random.Random) -> None:
        self._line, self._rule = line, rule
        self._meter, self._slots = Meter(), SlotLine(rng.random)

    def asked(self, now: float, brought: str | None) -> Answer:
        """Take one job or refuse it, saying when to come back."""
        at = int(now)
        if self._meter.sample is None or at - self._meter.at_ms >= SAMPLE_MS:
            sample = self._line.measured(now)
            self._meter.took(sample, at)
            self._slots.saw(sample, at)
        if self._rule is not Rule.TICKETS:
            return self._plain(now)
        held = checked(brought, SECRET, "storm", at)
        room = self._slots.room(self._meter, self._line.bounds, PRIORITY, 1, at)
        may_enter = self._slots.may_enter(room, held, 1, at)
        if may_enter and self._line.append(now, self._meter.pace()):
            self._slots.entered(1)
            return Answer(accepted=True)
        if held and room and brought:  # which stays good, as long as it said
            slot = held.slot_ms
            if held.is_due(at):
                self._slot(at)  # which it takes from those who come later
                slot = at + int(max(1.0, self._exact(room).excess) / room.mu * 1000)
            return Answer(
                accepted=False,
                retry_after=math.ceil(self._slots.retry_after_ms(slot, at) / 1000),
                ticket=brought,
            )
        new = self._slot(at)
        if new is None:
            return Answer(accepted=False)
        given = signed(ticket(new, 1, at), SECRET, "storm")
        seconds = math.ceil(self._slots.retry_after_ms(new, at) / 1000)
        return Answer(accepted=False, retry_after=seconds, ticket=given)

    def _plain(self, now: float) -> Answer:
        if self._line.append(now, self._meter.pace()):
            return Answer(accepted=True)
        mu = self._meter.mu
        if self._rule is Rule.SILENT or not mu:
            return Answer(accepted=False)
        if self._rule is Rule.SLOTS:
            at = int(now)
            slot = self._slot(at)
            told = None if slot is None else self._slots.retry_after_ms(slot, at) / 1000
        else:
            told = self._line.bounds.max_jobs * (1 - LOW) / mu
        return Answer(accepted=False, retry_after=None if told is None else math.ceil(told))

    def _slot(self, at: int) -> int | None:
        room = self._slots.room(self._meter, self._line.bounds, PRIORITY, 1, at)
        if room is None:
            return None
        room = self._exact(room)
        ask = self._slots.lacks(room, 1, at)
        if ask is not None:
            self._slots.granted(ask, self._line.reserved(ask, at), at)
        return self._slots.hand_out(1, at)

    def _exact(self, room: Room) -> Room:
        """As the door does: what the store has is of now, the sample perhaps a second old."""
        excess = self._line.depth - LOW * self._line.bounds.max_jobs
        return replace(room, excess=max(room.excess, excess))
