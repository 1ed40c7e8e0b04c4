"""`backlane serve`: an application's tasks and queues over HTTP, until told to stop."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import click

from backlane.cli.application import load
from backlane.cli.store import refuse_emptiness
from backlane.cli.web import need_web
from backlane.cli.worker import LEVELS, LOG_FORMAT

GRACE = 10.0  # seconds: a request takes moments, and streams end by themselves


@click.command()
@click.argument("target", metavar="MODULE:ATTR", envvar="BACKLANE_APP")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), metavar="N", default=8000, help="0: any free one."
)
@click.option(
    "--tokens",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Who may call; see `backlane token`.  [default: this machine, for all]",
)
@click.option(
    "--max-body",
    type=click.IntRange(1),
    metavar="BYTES",
    default=2 * 1024 * 1024,
    help="Of one request.",
)
@click.option(
    "--max-connections", type=click.IntRange(1), metavar="N", default=10_000, help="At a time."
)
@click.option("--root-path", default="", metavar="PATH", help="What a proxy in front cuts off.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=GRACE,
    help="For requests under way once it is told to stop.",
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", help="What is logged on stderr."
)
@click.option(
    "--print-openapi", is_flag=True, help="Print the OpenAPI document, and serve nothing."
)
def serve(
    target: str,
    tokens: Path | None,
    max_body: int,
    log_level: str,
    print_openapi: bool,
    **settings: object,
) -> None:
    """Serve an application over HTTP.

    The first SIGTERM or Ctrl-C lets requests under way finish, the second ends at once.
    """
    need_web()
    import msgspec

    from backlane.gateway import gateway
    from backlane.gateway.application import RULES
    from backlane.gateway.openapi import document
    from backlane.gateway.server import Settings, listening, server

    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    if log_level != "debug":
        # It tells of each malformed request, which anybody may send as many of as they like.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with closing(load(target)) as app:
        given = msgspec.convert(settings, Settings)
        if print_openapi:
            told = document(RULES, app, has_tokens=tokens is not None, root=given.root_path)
            click.echo(msgspec.json.format(msgspec.json.encode(told)))
            return
        refuse_emptiness(app.url, make=True)
        made = gateway(app, tokens=tokens, max_body=max_body)
        with listening(given, has_tokens=tokens is not None) as listener:
            server(made, given, listener, click.echo).run([listener])
