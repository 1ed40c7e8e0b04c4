"""The libraries of the gateway, which are an extra."""

from __future__ import annotations

from importlib.util import find_spec

import click


def missing_web() -> list[str]:
    """Return the libraries of the gateway that are not installed."""
    return [name for name in ("starlette", "uvicorn") if find_spec(name) is None]


def need_web() -> None:
    """Refuse to go on without the libraries of the gateway.

    Raises:
        ClickException: says how to install them.
    """
    if missing := missing_web():
        raise click.ClickException(
            f"the gateway needs {' and '.join(missing)}: pip install 'backlane[web]'"
        )
