"""Changes to many jobs: asked about first, done in bounded batches, shown as they go."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
import msgspec

from backlane.cli.output import Output, count, is_terminal
from backlane.cli.progress import progress
from backlane.cli.root import FAILED
from backlane.cli.store import Store, not_found
from backlane.engine.selection import Amended, Change, Selection
from backlane.errors import BacklaneError

YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

SHOWN = 10  # jobs named one by one as left alone; the rest are counted
IDS_A_CALL = 1_000  # what one amend changes at most


class SkippedView(msgspec.Struct, frozen=True):
    """A job that was left as it is, and why."""

    id: uuid.UUID
    why: str


@dataclass(slots=True)
class Tally:
    """What a bulk change has done so far."""

    changed: int = 0
    flagged: int = 0  # running jobs that were asked to stop
    skipped: list[SkippedView] = field(default_factory=list)
    skipped_in_all: int = 0

    def add(self, amended: Amended) -> int:
        """Count one answer in, and return how many jobs it was about."""
        self.changed += len(amended.changed)
        self.flagged += len(amended.flagged)
        self.skipped_in_all += len(amended.skipped)
        self.skipped += [
            SkippedView(uuid.UUID(bytes=each.job), each.why)
            for each in amended.skipped[: SHOWN - len(self.skipped)]
        ]
        return len(amended.changed) + len(amended.flagged) + len(amended.skipped)


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a command that changes jobs."""

    changed: int
    asked_to_stop: int
    skipped: int
    skipped_jobs: list[SkippedView]


class Wish(msgspec.Struct, frozen=True):
    """A change, with the words in which it is asked about and reported."""

    change: Change
    verb: str  # "cancel"
    done: str  # "cancelled"


def run(store: Store, output: Output, selection: Selection, wish: Wish, *, yes: bool) -> None:
    """Change the selected jobs; ask first unless each is named by its id.

    Raises:
        UsageError: nothing is selected.
        JobNotFound: an id is unknown; nothing was changed.
    """
    if selection == Selection():
        raise click.UsageError(f"say which jobs to {wish.verb}: ids, or options that select them")
    if selection.queue is not None:
        store.queue(selection.queue)
    if selection.ids:
        _refuse_unknown(store, selection.ids)
    else:
        confirmed(f"{wish.verb} every job that these options select?", yes=yes)
    told(output, change(store, selection, wish), wish.done)


def change(store: Store, selection: Selection, wish: Wish, *, total: int | None = None) -> Tally:
    """Carry the wish out, at most 1,000 jobs a transaction.

    What was done when it is interrupted stays done: the same command again goes on.
    """
    tally = Tally()
    try:
        with progress(wish.verb, total or len(selection.ids) or None) as bar:
            for part in _parts(selection):
                cursor, is_more = None, True
                while is_more:
                    amended = store.run(store.engine.amend(part, wish.change, cursor))
                    bar.advance(tally.add(amended))
                    cursor, is_more = amended.cursor, amended.cursor is not None
    except (KeyboardInterrupt, BacklaneError):
        click.echo(f"{count(tally.changed, 'job')} {wish.done} before this:", err=True)
        raise
    return tally


def _parts(selection: Selection) -> Iterator[Selection]:
    if not selection.ids:
        yield selection
    for start in range(0, len(selection.ids), IDS_A_CALL):
        ids = selection.ids[start : start + IDS_A_CALL]
        yield msgspec.structs.replace(selection, ids=ids)


def _refuse_unknown(store: Store, ids: tuple[bytes, ...]) -> None:
    """Refuse before anything is changed: a mistyped id is better told than half obeyed."""
    held: set[bytes] = set()
    for part in _parts(Selection(ids=ids)):
        page = store.run(store.engine.find(part, len(part.ids)))
        held.update(record.id for record in page.records)
    if missing := [each for each in ids if each not in held]:
        raise not_found(missing, store.engine.url)


def told(output: Output, tally: Tally, done: str) -> None:
    """Print what was done; exit 1 when all that was selected had to be left alone."""
    if output.as_json:
        output.document(
            ChangeView(
                changed=tally.changed,
                asked_to_stop=tally.flagged,
                skipped=tally.skipped_in_all,
                skipped_jobs=tally.skipped,
            )
        )
    else:
        parts = [f"{count(tally.changed, 'job')} {done}"]
        if tally.flagged:
            parts.append(f"{count(tally.flagged, 'running job')} asked to stop")
        if tally.skipped_in_all:
            parts.append(f"{tally.skipped_in_all:,} left as they are")
        output.line(", ".join(parts))
        for each in tally.skipped:
            output.line(f"  {each.id}: {each.why}")
    if tally.skipped_in_all and not (tally.changed or tally.flagged):
        click.get_current_context().exit(FAILED)


def confirmed(question: str, *, yes: bool) -> None:
    """Go on only if a person (or `--yes`) agrees.

    Raises:
        ClickException: the answer was no.
        UsageError: nobody can be asked.
    """
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as error:
        if is_terminal(sys.stdin):
            raise
        click.echo(err=True)
        raise click.UsageError("nobody is there to agree; add --yes") from error
    if not agreed:
        raise click.ClickException("nothing was changed")
