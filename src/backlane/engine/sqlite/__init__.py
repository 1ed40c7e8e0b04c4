"""The SQLite engine: jobs in one file, shared by the processes of one machine.

Nothing has to run beside it. An append is on stable storage before it is acknowledged
(`synchronous=FULL`), and callers that wait for the disk at the same moment share one
commit.
"""

from backlane.engine.protocol import Engine
from backlane.engine.sqlite.engine import SqliteEngine
from backlane.engine.sqlite.store.address import parse
from backlane.model.clock import Clock

__all__ = ["SqliteEngine", "open_url"]


def open_url(url: str, clock: Clock) -> Engine:
    """Return the engine for `sqlite:///path?durability=full|normal`, not opened yet.

    Raises:
        BadOption: the URL names no file, or an option has a value that cannot work.
        UnknownOption: it has an option that does not exist.
    """
    address = parse(url)
    return SqliteEngine(
        address.path,
        clock=clock,
        durability=address.durability,
        may_be_remote=address.may_be_remote,
    )
