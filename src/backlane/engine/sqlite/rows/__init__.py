"""Rows: how jobs lie in the tables."""
