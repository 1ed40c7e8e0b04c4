"""The command line: one file a command group; the only place that reads the environment."""

from backlane.cli.root import main

__all__ = ["main"]
