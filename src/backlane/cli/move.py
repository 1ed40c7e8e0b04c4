"""`backlane move`: a live system goes from one store to another."""

from __future__ import annotations

import time

import click
import msgspec

from backlane.cli.interrupt import sigterm_interrupts
from backlane.cli.mover import Moved, Mover, StillRunning
from backlane.cli.output import Output, count
from backlane.cli.progress import progress
from backlane.cli.store import opened
from backlane.errors import BacklaneError
from backlane.model.job import FINAL, State


class MoveView(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `move`: what this run of it has brought over."""

    source: str
    target: str
    done: bool
    jobs: int
    ended: int
    idempotency_keys: int
    left: int
    seconds: float


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    metavar="S",
    default=60.0,
    help="Seconds to wait for running jobs to end.",
)
@click.option("--history", is_flag=True, help="Move all that ended too, not dead letters alone.")
@click.option("--back", is_flag=True, help="Give up a move before jobs went over: open FROM again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def move(source: str, target: str, grace: float, history: bool, back: bool, as_json: bool) -> None:
    """Move a live system from one store to another.

    FROM takes no new jobs from now on, and gives none to workers; producers are told to
    come again. Once what runs has ended, settings, waiting jobs and dead letters go over
    to TO, with nothing lost and nothing twice. Interrupted or killed, the same command
    goes on. Workers may serve TO from the beginning; give producers its URL when the
    move is done.
    """
    output, began = Output(as_json), time.monotonic()
    with (
        opened(source, None) as old,
        opened(target, None, make=True) as new,
        sigterm_interrupts(),
    ):
        states = tuple(FINAL) if history else (State.FAILED,)
        mover = Mover(old.engine, new.engine, final=states, told=_told)
        if back:
            mover.open_again()
            output.line(f"{old.engine.url} is open again; nothing has moved")
            return
        mover.check()
        mover.seal()
        try:
            mover.wait(grace)
            with progress("moving", sum(queue.depth.jobs for queue in old.queues())) as bar:
                mover.hand_over(bar.advance)
        except (BacklaneError, KeyboardInterrupt) as error:
            if isinstance(error, StillRunning):
                raise
            raise click.ClickException(
                f"{error or 'interrupted'}; {old.engine.url} stays as it is, and the same command "
                "goes on"
            ) from error
        _report(output, mover.moved, old.engine.url, new.engine.url, time.monotonic() - began)


def _told(text: str) -> None:
    click.echo(text, err=True)


def _report(output: Output, moved: Moved, source: str, target: str, seconds: float) -> None:
    if output.as_json:
        view = MoveView(
            source=source,
            target=target,
            done=True,
            jobs=moved.jobs,
            ended=moved.ended,
            idempotency_keys=moved.keys,
            left=moved.left,
            seconds=round(seconds, 3),
        )
        output.document(view)
        return
    output.line(
        f"moved {count(moved.jobs, 'job')} to {target} in {seconds:.1f} s, "
        f"{moved.ended:,} of them ended, and {count(moved.keys, 'idempotency key')}"
    )
    if moved.left:
        output.line(f"{count(moved.left, 'damaged job')} could not be read and stay in {source}")
    output.line(f"{source} takes no jobs any more: start applications and workers with {target}")
