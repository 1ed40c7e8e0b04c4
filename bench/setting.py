"""The setting of a run: its sizes, its directory, its peers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.peer import Peers
from bench.store import Store


@dataclass(frozen=True, slots=True)
class Setting:
    """What every figure is given."""

    full: bool
    directory: Path  # on the disk that is measured, emptied after the run
    kept: Path  # for the large files, built once

    def size(self, full: int, quick: int) -> int:
        """Return the number for this run's size."""
        return full if self.full else quick

    def store(self, name: str) -> Store:
        """Return a fresh store."""
        return Store.fresh(self.directory / f"{name}.db")

    def peers(self) -> Peers:
        """Return the peers, installed first where they are not yet."""
        return Peers.installed()
