"""Figures of a shop, served at once while the next ones are computed."""
