"""`anytime models`: what the server serves."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from anytime_client.cli import options
from anytime_protocol.model_info import ExitInfo


def models(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List the server's models, their exits' costs and quality, classes or joints."""
    with options.connect(context) as client:
        served = client.models
    if as_json:
        options.print_json({"models": [model.to_json() for model in served]})
        return
    table = Table("model", "task", "exits: GMACs (quality)", "classes or joints")
    for model in served:
        names = [info.name for info in model.classes] or list(model.keypoints)
        exits = "\n".join(
            f"{number}: {_exit(exit_)}" for number, exit_ in enumerate(model.exits, 1)
        )
        table.add_row(model.name, str(model.task), exits, ", ".join(names))
    Console().print(table)


def _exit(info: ExitInfo) -> str:
    quality = "" if info.quality is None else f" ({info.quality:.3f})"
    return f"{info.gmacs:.2f}{quality}"
