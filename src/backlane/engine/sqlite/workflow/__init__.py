"""Workflows: which jobs wait for which, and what comes of it when one ends."""
