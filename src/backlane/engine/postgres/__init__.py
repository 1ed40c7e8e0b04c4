"""The PostgreSQL engine: jobs in a database, shared by any number of machines.

An append is on the server's stable storage before it is acknowledged, and can be part of
the caller's own transaction. Where two processes would change one row they insert
instead, so that nothing waits and nothing slows down behind a long transaction.
"""

from backlane.engine.postgres.engine import PostgresEngine, open_url

__all__ = ["PostgresEngine", "open_url"]
