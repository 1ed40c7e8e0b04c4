"""The doctor of the PostgreSQL engine: what loses jobs or time, and the command that mends it."""
