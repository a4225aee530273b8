"""The command `anytime-model`: it parses, calls, prints, and turns errors into messages."""

import sys

import typer

from anytime_model.commands.agree import agree
from anytime_model.commands.convert import convert
from anytime_model.commands.flops import flops
from anytime_model.commands.run import run
from anytime_model.errors import AnytimeModelError

app = typer.Typer(
    help="Build, count, check, train and run anytime networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, convert, flops, agree):
    app.command()(command)


def main() -> None:
    """Run the command line; exit with 2 and one message for anything the user can mend."""
    try:
        app()
    except AnytimeModelError as error:
        typer.echo(f"anytime-model: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
