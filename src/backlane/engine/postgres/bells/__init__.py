"""Bells: how who waits hears that something changed, in whatever process."""
