"""The command line `anytime-model`: its subcommands, and messages instead of tracebacks.

A subcommand's module is imported when it is called, so that counting multiply-adds does not wait
for the libraries of training, and a model can be run where those are not installed.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup

from anytime_model.errors import AnytimeModelError, ConfigError

NEEDS = {
    "run": (),
    "convert": (),
    "flops": (),
    "agree": (),
    "quantise": (),
    "train": ("albumentations", "cv2", "matplotlib", "scipy", "torchmetrics"),
    "finish": ("albumentations", "cv2", "matplotlib", "scipy", "torchmetrics"),
    "evaluate": ("cv2", "matplotlib", "scipy", "torchmetrics"),
    "calibrate": ("cv2", "matplotlib", "scipy", "torchmetrics"),
}
"""Subcommands, in the order of the help, and what each needs beyond the `model` extra."""


class OnDemand(TyperGroup):
    """Subcommands by name, each from its module in `anytime_model.cli`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Those that can run here."""
        return [name for name in NEEDS if not _missing(name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """One of them, imported now.

        Raises:
            ConfigError: packages that it needs are not installed.
        """
        if cmd_name not in NEEDS:
            return None
        missing = _missing(cmd_name)
        if missing:
            raise ConfigError(
                f"`{cmd_name}` needs {', '.join(missing)}, not installed here. "
                "Run `pip install 'anytime-dense[train]'`."
            )
        function = getattr(import_module(f"anytime_model.cli.{cmd_name}"), cmd_name)
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(function)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=OnDemand,
    help="Build, count, check, train and run anytime networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _anytime_model() -> None:
    """Build, count, check, train and run anytime networks."""


def main() -> None:
    """Run the command line; exit with 2 and one message for anything the user can mend."""
    try:
        app()
    except AnytimeModelError as error:
        typer.echo(f"anytime-model: {error}", err=True)
        sys.exit(2)


def _missing(name: str) -> list[str]:
    return [package for package in NEEDS[name] if find_spec(package) is None]
