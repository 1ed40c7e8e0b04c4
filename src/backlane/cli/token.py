"""`backlane token`: who may call the gateway, and for what."""

from __future__ import annotations

from pathlib import Path

import click

from backlane.cli.output import Output
from backlane.cli.web import need_web

DEFAULT_FILE = Path("tokens.toml")

_file = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    default=DEFAULT_FILE,
    help="The tokens file.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def token() -> None:
    """Add, list and remove tokens of the gateway."""
    need_web()


@token.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    required=True,
    help="submit, read, send, receive, operate, or one for a task or queue: send:orders.",
)
@_file
@_json
def add(name: str, scopes: tuple[str, ...], path: Path, as_json: bool) -> None:
    """Add a token and print its secret, once.

    Only a digest of the secret is kept. Running gateways know the token within seconds.
    """
    from backlane.gateway import tokens

    secret = tokens.add(path, name, scopes)
    output = Output(as_json)
    if as_json:
        output.document({"name": name, "scopes": scopes, "secret": secret})
    else:
        click.echo(f"backlane: token {name!r} is in {path}; its secret is shown once:", err=True)
        output.line(secret)


@token.command("list")
@_file
@_json
def list_(path: Path, as_json: bool) -> None:
    """List tokens and their scopes."""
    from backlane.gateway import tokens

    found = tokens.read(path)
    output = Output(as_json)
    if as_json:
        output.document([{"name": each.name, "scopes": each.scopes} for each in found])
    else:
        output.table(("name", "scopes"), [(it.name, " ".join(it.scopes)) for it in found])


@token.command()
@click.argument("name", metavar="NAME")
@_file
def remove(name: str, path: Path) -> None:
    """Remove a token; running gateways follow within seconds."""
    from backlane.gateway import tokens

    tokens.remove(path, name)
    click.echo(f"backlane: token {name!r} opens nothing any more", err=True)
