"""The SQLite engine: jobs in one file, shared by the processes of one machine.

Nothing has to run beside it. An append is on stable storage before it is acknowledged
(`synchronous=FULL`), and callers that wait for the disk at the same moment share one
commit.
"""

from backlane.engine.sqlite.engine import SqliteEngine, open_url

__all__ = ["SqliteEngine", "open_url"]
