"""The demonstration: real files indexed by real workers, one of which is killed half-way."""
