"""`anytime-model finish`: export of a training's progress as calibrated weights with their card."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from anytime_model.cli.options import ThreadsOption
from anytime_model.training.curves import draw
from anytime_model.training.export import Exported, export
from anytime_model.training.loop import CURVES
from anytime_model.training.run import recipe_named


def finish(
    recipe: Annotated[str, typer.Option(help="The recipe that was trained.")],
    progress: Annotated[Path, typer.Option(help="Its progress file.")],
    data: Annotated[Path, typer.Option(help="Folder of its data set.")],
    out: Annotated[Path, typer.Option(help="Folder of the weights and their manifest.")],
    name: Annotated[str, typer.Option(help="Of the model, and of its file.")],
    *,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "unknown",
    description: Annotated[
        str | None, typer.Option(help="What it knows, in a line; by default the data's folder.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor that images will be enlarged by.")] = 1.0,
    allowed_loss: Annotated[
        float, typer.Option(help="What masks may cost the last exit, 0 to 1.")
    ] = 0.003,
    curves: Annotated[
        Path | None, typer.Option(help="Draw the training's curves into this file.")
    ] = None,
    half: Annotated[bool, typer.Option(help="Run in bfloat16 meanwhile.")] = False,
    threads: ThreadsOption = None,
) -> None:
    """Calibrate a trained network, choose its masks' threshold on held-out data, and ship it."""
    if threads:
        torch.set_num_threads(threads)
    done = export(
        recipe_named(recipe, data=data),
        progress,
        data,
        out,
        name=name,
        licence=licence,
        description=f"Trained on {data.resolve().name}." if description is None else description,
        scale=scale,
        allowed_loss=allowed_loss,
        half=half,
    )
    if curves:
        draw(progress.parent / CURVES, curves, done.card.task.metric.label)
    console = Console(width=100)
    console.print(f"{out / done.card.file}: SHA-256 {done.card.sha256}", soft_wrap=True)
    console.print("temperatures: " + ", ".join(f"{t:.3f}" for t in done.temperatures))
    console.print(_table(done))
    typer.echo(f"next: {shlex.join(['anytime-server', 'serve', '--weights', str(out)])}")


def _table(done: Exported) -> Table:
    table = Table(title="thresholds on held-out data")
    exits = [f"exit {e.exit}" for e in done.choice.unmasked.exits]
    for column in ("threshold", *exits, "maskable saved", "chosen"):
        table.add_column(column, justify="right")
    rows = [("none", done.choice.unmasked), *((f"{t:g}", r) for t, r in done.choice.tried)]
    for label, report in rows:
        scores = (f"{100 * e.score:.2f}" for e in report.exits)
        chosen = done.choice.threshold is not None and label == f"{done.choice.threshold:g}"
        saved = f"{100 * report.maskable_saved:.1f} %"
        table.add_row(label, *scores, saved, "yes" if chosen else "")
    return table
