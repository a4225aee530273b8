"""`anytime-model agree`: is this network still the published one?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from anytime_model.parity import TOLERANCE
from anytime_model.parity import agree as compare


def agree(
    files: Annotated[list[Path], typer.Argument(help="Reference files (.npz).")],
) -> None:
    """Compare with reference outputs of the authors' network.

    Prints for each exit the largest error relative to the largest logit and the number of mask
    positions that differ. Exits with 1 if an error is above 1e-4 or any mask differs.
    """
    table = Table("file", "exit", "relative error", "differing mask positions", "agrees")
    all_agree = True
    for file in files:
        for result in compare(file):
            all_agree &= result.agrees
            table.add_row(
                file.name,
                str(result.exit),
                f"{result.relative_error:.1e}",
                str(result.differing),
                "yes" if result.agrees else "NO",
            )
    Console(width=100).print(table)
    if not all_agree:
        typer.echo(f"Some exits do not agree (tolerance {TOLERANCE:g}).", err=True)
        raise typer.Exit(1)
