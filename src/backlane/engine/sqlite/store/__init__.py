"""The store: the file itself, and what it takes to open, lock and read it."""
