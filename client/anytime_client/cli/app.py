"""The program `anytime`: options of all subcommands, errors and exit codes.

0    done
1    the server refused or failed the request
2    the arguments, the image or the output are unusable
3    the server cannot be reached, went away, was silent or does not speak the protocol
130  Ctrl-C; a request that ran was cancelled
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from anytime_client.address import DEFAULT_URL
from anytime_client.cli import bench, budget, demo, models, options, predict, stream, watch
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectError,
    RequestError,
    SilenceError,
)
from anytime_client.transport import TransportKind

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A map early, a better one at each exit, stopped whenever the budget says so.",
    epilog="Exit codes: 0 done; 1 the server refused or failed the request; 2 unusable arguments, "
    "image or output; 3 no server, or none that speaks the protocol; 130 Ctrl-C.",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"anytime {metadata.version('anytime-dense')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option("--server", "-s", envvar="ANYTIME_URL", help="The server's URL.")
    ] = DEFAULT_URL,
    token: Annotated[
        str | None, typer.Option("--token", envvar="ANYTIME_TOKEN", help="Bearer token.")
    ] = None,
    transport: Annotated[
        TransportKind,
        typer.Option("--transport", help="Websocket, plain HTTP, or what gets through."),
    ] = TransportKind.AUTO,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=0.1, help="Longest silence of the server, in s.")
    ] = 30.0,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """A map early, a better one at each exit, stopped whenever the budget says so."""
    context.obj = options.ServerOptions(url, token, transport, timeout_s)


app.command()(demo.demo)
app.command()(predict.predict)
app.command()(stream.stream)
app.command()(watch.watch)
app.command()(models.models)
app.command()(budget.budget)
app.command()(bench.bench)


def main() -> None:
    """Runs the program; every expected error is one line on standard error."""
    try:
        app()
    except RequestError as error:
        _exit_with(error, 1)
    except (ConnectError, SilenceError, AnswerError) as error:
        _exit_with(error, 3)
    except AnytimeError as error:
        _exit_with(error, 2)


def _exit_with(error: Exception, code: int) -> None:
    typer.echo(f"anytime: {error}", err=True)
    sys.exit(code)
