"""The figures of the storms, beside what is promised."""

from __future__ import annotations

from dataclasses import replace

from bench.figure import Figure, at_most
from bench.setting import Setting
from bench.storm.policy import POLICIES, TICKETS
from bench.storm.scenes import CLIENTS, CROWD, OVERLOAD_SECONDS, PASSERS_BY
from bench.storm.world import Scene, Story, World

SEED = 1
LEAST_FIRST = 0.95
MOST_ATTEMPTS = 2.0
MOST_IDLE = 0.1  # seconds of all slots: what rounding a second up may leave
RECOVERY = 5  # seconds after the overload, from which on nothing is refused


def storm(_setting: Setting) -> list[Figure]:
    """Simulate them; seeded, so the figures are the same at every size and on every machine."""
    figures = [_told(policy.name, CROWD, World(CROWD, policy, SEED).told()) for policy in POLICIES]
    obeying = World(CLIENTS, TICKETS, SEED).told()
    passing = World(PASSERS_BY, replace(TICKETS, obeys=0.0), SEED).told()
    figures += _promised("crowd of 5,000", CROWD, World(CROWD, TICKETS, SEED).told())
    figures += _promised("200 clients at 3x", CLIENTS, obeying)
    for name, story in (("200 clients", obeying), ("callers who never return", passing)):
        end = OVERLOAD_SECONDS + RECOVERY
        refused = story.refused_between(end, story.seconds)
        figures.append(
            at_most(f"refused {RECOVERY} s after 3x, {name}", refused, unit="callers", bar=0.5)
        )
        waited = story.waited_ms(99) / 1000
        figures.append(at_most(f"p99 wait of accepted jobs, {name}", waited, unit="s", bar=6.5))
        for percent, bar in ((50, 20), (90, 50)):
            missed = story.missed(percent) * 100
            what = f"wait told against waited, {percent} % of jobs, {name}"
            figures.append(at_most(what, missed, unit="% off", bar=bar))
    return figures


def _told(name: str, scene: Scene, story: Story) -> Figure:
    told = (
        f"{story.attempts_per_accepted:.1f} attempts per accepted, at most "
        f"{story.most_per_second():,} in a second, {story.first_return:.0%} at the first return, "
        f"95 % within {story.p95_seconds:.0f} s, idle {_idle(scene, story):.1f} s"
    )
    return Figure(name=f"crowd: {name}", measured=told, beside="", ratio="", bar="", holds=True)


def _promised(name: str, scene: Scene, story: Story) -> list[Figure]:
    first = story.first_return
    return [
        at_most(
            f"attempts per accepted, {name}",
            story.attempts_per_accepted,
            unit="attempts",
            bar=MOST_ATTEMPTS,
        ),
        Figure(
            name=f"accepted at their first return, {name}",
            measured=f"{first:.1%}",
            beside=f"{story.returned:,} who returned",
            ratio="",
            bar=f"at least {LEAST_FIRST:.0%}",
            holds=first >= LEAST_FIRST,
        ),
        at_most(f"idle while callers wait, {name}", _idle(scene, story), unit="s", bar=MOST_IDLE),
    ]


def _idle(scene: Scene, story: Story) -> float:
    return story.idle_ms / 1000 / scene.slots
