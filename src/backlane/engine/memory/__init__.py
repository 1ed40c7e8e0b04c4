"""The memory engine: the contract as plain Python, and the double that tests use.

What an engine must do is what this one does. It is written to be read: rows in
dicts, and mostly a scan where a database has a query. Jobs live as long as the
engine does, in one process.
"""

from backlane.engine.memory.engine import MemoryEngine, open_url

__all__ = ["MemoryEngine", "open_url"]
