"""What random stories about engines are made of: drafts of jobs, selections, outcomes."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.engine.contract.desk import (
    CRASHED,
    CRASHED_ALONE,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    retry,
    snooze,
)

from backlane.engine.scheduling import Pause, Put, Remove, Resume
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.job import Idempotency, Key, KeyRule, Lane, Policy, State, When
from backlane.model.limit import Limit, Rate, Use
from backlane.model.outcome import Succeeded

QUEUES = ("mail", "video")
TASKS = ("send", "resize")
WORKFLOW = b"w" * 16
ASKED = [Idempotency("ann", "k", asked, 60_000) for asked in (b"1", b"2")]
LIMITS = {
    "stripe": Limit(concurrency=2),
    "eu": Limit(concurrency=1, per_group=True),
    "slow": Limit(rate=Rate(3, 1_000, 2)),
    "queue:mail": Limit(concurrency=3),
}
TUNED = [
    None, Limit(), Limit(concurrency=0), Limit(concurrency=1), Limit(rate=Rate(1, 1_000)),
]  # fmt: skip
ACQUIRED = [Use("stripe"), Use("slow"), Use("queue:mail"), Use("eu", "x")]

OUTCOMES = [
    SUCCEEDED, Succeeded(b"42"), FAILED, STOPPED, RELEASED, CRASHED, CRASHED_ALONE, retry(0),
    retry(5), snooze(0), snooze(40), snooze(5, parked=True),
]  # fmt: skip
CHANGES = [
    Cancel(), Redrive(), Reprioritise(1), Reprioritise(9), Delete(), Move("mail"), Move("video"),
]  # fmt: skip
OF_SCHEDULES = [
    Put(spec=b"0 3", task="send"), Put(spec=b"0 3", task="send", is_declared=True),
    Put(spec=b"0 4", task="resize", is_declared=True), Pause(), Resume(), Remove(),
]  # fmt: skip

queues = st.sampled_from(QUEUES)
selections = st.one_of(
    st.builds(lambda queue: Selection(queue=queue), queues),
    st.builds(lambda state: Selection(states=(state,)), st.sampled_from(State)),
    st.builds(lambda key: Selection(key=key), st.sampled_from(["a", "b"])),
    st.builds(lambda text: Selection(text=text), st.sampled_from(["BOOM", "nothing"])),
    st.builds(lambda group: Selection(group=group, task="send"), st.sampled_from(["x", "y"])),
    st.builds(lambda tag: Selection(tag=tag), st.sampled_from(["red", "blue"])),
    st.builds(lambda queue: Selection(workflow=WORKFLOW, queue=queue), st.none() | queues),
)
PLAIN = {
    "queue": queues,
    "task": st.sampled_from(TASKS),
    "body": st.binary(max_size=6),
    "headers": st.none() | st.just(b"h"),
    "priority": st.sampled_from([0, 5, 5, 9]),
    "lane": st.sampled_from(Lane),
    "delay_ms": st.sampled_from([0, 0, 0, 5_000, 400_000]),
    "expires_ms": st.sampled_from([None, None, 1, 20_000, 500_000]),
    "policy": st.sampled_from([Policy(), Policy(attempts=1), Policy(attempts=2)]),
    "key": st.sampled_from([None, None, None, Key("send", "a"), Key("send", "b")]),
    "group": st.sampled_from([None, "x", "y"]),
    "parent": st.sampled_from([None, None, b"p" * 16]),
    "resource": st.sampled_from([None, None, "stripe", "mailgun"]),
    "idempotency": st.sampled_from([*[None] * 10, *ASKED]),
}
# How jobs hang together. `after` holds how far back those are that it waits for.
TIED = {
    "policy": st.sampled_from(
        [
            Policy(),
            Policy(attempts=1),
            Policy(attempts=2, keep_ms=5_000),
            Policy(keep_ms=-1),
            *[Policy(keeps_latest=True)] * 3,
        ]
    ),
    "rule": st.builds(
        lambda held, met: KeyRule(held[0], held[1], *met),
        st.sampled_from(
            [("started", None), ("finished", None), ("succeeded", None), ("finished", 20_000)]
        ),
        st.sampled_from(
            [("existing", None), ("raise", None), ("replace", None), ("debounce", 15_000)]
        ),
    ),
    "after": st.just(())
    | st.lists(st.tuples(st.integers(1, 6), st.sampled_from(When)), max_size=2).map(tuple),
    "workflow": st.sampled_from([None, WORKFLOW]),
    "tags": st.sampled_from([(), (), ("red",), ("red", "blue")]),
}
# A use of "eu" is of the job's group, and so is the turn.
LIMITED = {
    "uses": st.sampled_from(
        [
            (),
            (),
            ("stripe",),
            ("eu",),
            ("slow",),
            ("turn",),
            ("stripe", "slow"),
            ("eu", "turn"),
            ("turn", "stripe"),
            ("slow", "eu", "turn"),
        ]
    ),
}


def drafts_of(*, is_tied: bool, is_limited: bool) -> st.SearchStrategy[dict[str, object]]:
    """Drafts of jobs; those that have edges or uses tell of them as a story goes on from here."""
    more = (TIED if is_tied else {}) | (LIMITED if is_limited else {})
    return st.fixed_dictionaries(PLAIN | more)


def uses_of(names: tuple[str, ...], queue: str, group: str | None) -> tuple[Use, ...]:
    """What a draft says of limits, as the job of that queue and group has it."""
    of_group = {"eu": Use("eu", group or "")}
    if group is not None:
        of_group["turn"] = Use(f"queue:{queue}", group, turn=True)
    return tuple(of_group.get(name) or Use(name) for name in names if name in {*of_group, *LIMITS})
