"""Delivery: one call, sent until it is answered or its deadline passes.

A request may be sent again because each one says what it is: a job travels with its
id, a message with its key. So a lost answer costs a repetition, never a second job.

After a refusal that says when, the next try comes then, with the ticket; budget and
throttle are not asked, because the gateway keeps the place. After any other failure
that may pass, it comes after a jittered wait, within the client's retry budget. The
throttle is for first tries: it keeps new calls away from a gateway that answers none.
"""

from __future__ import annotations

import uuid

import msgspec

from backlane.client.pacer import Pacer
from backlane.client.refusal import error_of, kind_of, told_of
from backlane.client.step import Answer, Lost, Request, Sleep, Steps, sending
from backlane.errors import BacklaneError, GatewayUnavailable, OutcomeUnknown
from backlane.model.backoff import Throttle, full_jitter, obeyed
from backlane.problem import TICKET_HEADER

# What may pass by itself: RFC 9110 and, of 425, RFC 8470.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_IN_DOUBT = frozenset({500, 502, 504})  # it may have been done before this was answered


class Terms(msgspec.Struct, frozen=True):
    """How long one call goes on trying.

    Args:
        deadline: seconds for all of it, waits between tries included.
        timeout: seconds for one try.
        attempts: the most tries; None: as many as fit before the deadline.
        wait: seconds that the gateway is asked to take.
        jobs: the ids that are in doubt when an answer is lost.
        again: how to store the same again, for a call that stores something.
    """

    deadline: float
    timeout: float
    attempts: int | None = None
    wait: float = 0.0
    jobs: tuple[uuid.UUID, ...] = ()
    again: str = ""


class Tries:
    """How often one call was tried, and what came of it."""

    __slots__ = ("count", "in_doubt", "last", "was_sent")

    def __init__(self) -> None:
        self.count = 0  # tries that were sent, or kept back by the throttle
        self.was_sent = False
        self.in_doubt = False  # a try may have been done, and none after it told
        self.last: Answer | Lost | None = None

    def note(self, reply: Answer | Lost) -> None:
        """Keep what came of a try that failed."""
        self.last = reply
        if isinstance(reply, Lost):
            self.in_doubt |= reply.sent
        else:
            self.in_doubt |= reply.status in _IN_DOUBT or kind_of(reply) == "outcome-unknown"

    def giving_up(self, terms: Terms) -> BacklaneError:
        """Return the error for a call that was not answered in time."""
        known = None
        if isinstance(self.last, Answer) and kind_of(self.last) in ("busy", "unavailable"):
            known = error_of(self.last)
        in_doubt = self.in_doubt and terms.again
        if known is not None and not in_doubt:
            return known
        said = (
            f"no usable answer of the gateway in {terms.deadline:g} s; the last of "
            f"{self.count} tries: {known or self._cause()}"
        )
        error = (
            OutcomeUnknown(f"{said}. It may be stored: {terms.again}", terms.jobs)
            if in_doubt
            else GatewayUnavailable(f"{said}. Is it up, and is the address right?")
        )
        error.__cause__ = self.last.error if isinstance(self.last, Lost) else known
        return error

    def _cause(self) -> str:
        match self.last:
            case Lost(error=error):
                return f"{type(error).__name__}: {error}".rstrip(": ")
            case Answer(status=status):
                return f"HTTP {status}"
            case None:
                return "not sent, because next to nothing was answered of late"


def deliver(request: Request, terms: Terms, pacer: Pacer) -> Steps[Answer]:
    """Send until there is a good answer, and return it.

    Raises:
        GatewayUnavailable: no usable answer came.
        OutcomeUnknown: as before, and a job may have been stored.
        BacklaneError: what the answer says.
    """
    ends = pacer.now() + terms.deadline
    tries, was_told = Tries(), False
    pacer.begin()
    while True:
        tries.count += 1
        number = None
        if not was_told:
            patience = terms.wait + Throttle.PATIENCE_SECONDS
            number = pacer.start(patience, is_retry=tries.was_sent)
        if was_told or number is not None:
            tries.was_sent = True
            left = max(0.001, ends - pacer.now())
            reply = yield from sending(request, min(terms.timeout, left))
            is_over = isinstance(reply, Answer) and reply.status not in PASSING
            # Who refuses with a time has reckoned it: nothing is wrong there.
            pacer.end(number, is_accepted=is_over or _estimate(reply, pacer) is not None)
            if isinstance(reply, Answer) and is_over:
                return good(reply)
            tries.note(reply)
            request = _with_ticket(request, reply)
        wait, was_told = _wait(tries, pacer, ends - pacer.now())
        if wait is None or tries.count == terms.attempts:
            raise tries.giving_up(terms)
        yield Sleep(wait)


def good(answer: Answer) -> Answer:
    """Return an answer that is one, or raise the error that it means."""
    if answer.status < 300:
        return answer
    raise error_of(answer)


def _estimate(reply: Answer | Lost | None, pacer: Pacer) -> float | None:
    """Return the seconds after which there will be room, where that was reckoned."""
    told = told_of(reply, pacer.wall()) if isinstance(reply, Answer) else None
    return told.seconds if told is not None and told.is_estimate else None


def _wait(tries: Tries, pacer: Pacer, left: float) -> tuple[float | None, bool]:
    """Return the seconds until the next try, None for never, and whether they were told."""
    estimate = _estimate(tries.last, pacer)
    if estimate is not None:
        until = obeyed(estimate, pacer.draw())
        return (until if until < left else None), True
    wait = unpaced_wait(tries, pacer, left)
    if wait is None or not tries.was_sent:  # what was kept back cost nobody anything
        return wait, False
    token = pacer.retry_in(left)
    if token is None or max(wait, token) >= left:
        return None, False
    return max(wait, token), False


def unpaced_wait(tries: Tries, pacer: Pacer, left: float) -> float | None:
    """Return a jittered wait that ends before `left` seconds have passed, if one can."""
    told = told_of(tries.last, pacer.wall()) if isinstance(tries.last, Answer) else None
    least = 0.0 if told is None else obeyed(told.seconds, pacer.draw())
    if least >= left:
        return None
    wait = least + full_jitter(tries.count, pacer.draw())
    # One last try beats none, so a wait beyond the end is drawn again, with time to send.
    most = least + 0.75 * (left - least)
    return wait if wait < most else least + (most - least) * pacer.draw()


def _with_ticket(request: Request, reply: Answer | Lost) -> Request:
    """Return the request with the newest ticket; an older one is kept through failures."""
    if not isinstance(reply, Answer) or TICKET_HEADER.lower() not in reply.headers:
        return request
    return request.with_headers({TICKET_HEADER: reply.headers[TICKET_HEADER.lower()]})
