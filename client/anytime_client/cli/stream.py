"""`anytime stream`: every exit's map as it comes, with a live table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich import box
from rich.live import Live
from rich.table import Table

from anytime_client import render
from anytime_client.cli import options
from anytime_client.cli.predict import summary
from anytime_client.client import Client
from anytime_client.images import open_image
from anytime_client.output import OutputFormat, encode_update, result_to_json, update_to_json, write
from anytime_client.results import Result, Update
from anytime_protocol.budget import Budget


def stream(
    context: typer.Context,
    image: options.ImagePath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a file of each exit.")
    ] = None,
    form: options.FileFormat = OutputFormat.OVERLAY,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="PNG file with all exits and their times.")
    ] = None,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    compute_gmacs: options.ComputeGmacs = None,
    min_confidence: options.MinConfidence = None,
    confident_share: options.ConfidentShare = None,
    max_risk: options.MaxRisk = None,
    as_json: options.AsJson = False,
) -> None:
    """Watch the map of one image get better, exit by exit; Ctrl-C cancels.

    With --json each exit is one line on standard output, and the result another.
    """
    data, name = options.read_image(image)
    upright = open_image(data)
    budget = options.limits(
        deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share, max_risk
    )
    with options.connect(context) as client:
        if as_json:
            updates, result = _collect(
                client, data, model, budget, lambda u: options.print_json(update_to_json(u))
            )
            options.print_json(result_to_json(result))
        else:
            updates = stream_with_table(client, data, model, budget, name)
    if out is not None:
        for update in updates:
            path = out / f"{Path(name).stem}-exit{update.exit}{form.suffix}"
            write(path, encode_update(update, upright, form))
    if sheet is not None:
        save_sheet(sheet, upright, updates)


def stream_with_table(
    client: Client, data: bytes, model: str | None, budget: Budget, name: str
) -> list[Update]:
    """All updates of an image, with a table on standard error that grows as they come."""
    console = options.stderr_console()
    # 80 columns are enough.
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    for column in ("exit", "elapsed ms", "compute ms", "GMACs", "confident", "settled", "changed"):
        table.add_column(column, justify="right", no_wrap=True)

    def add_row(update: Update) -> None:
        changed = "" if update.changed_share is None else f"{update.changed_share:.1%}"
        table.add_row(
            update.label.removeprefix("exit "),
            f"{update.times.elapsed_ms:.1f}",
            f"{update.times.compute_ms:.1f}",
            f"{update.gmacs:.2f}",
            f"{update.confidence:.3f}",
            f"{update.confident_share:.1%}",
            changed,
        )

    live = Live(table, console=console) if console.is_terminal else nullcontext()
    with live:
        updates, result = _collect(client, data, model, budget, add_row)
    if not console.is_terminal:
        console.print(table)
    options.print_note(summary(result))
    return updates


def save_sheet(path: Path, image: Image.Image, updates: list[Update]) -> None:
    """Writes all exits side by side as one PNG file."""
    if not updates:
        options.print_note("no exit was made, so there is no sheet")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    render.contact_sheet(image, updates).save(path, "PNG", optimize=True)


def _collect(
    client: Client,
    data: bytes,
    model: str | None,
    budget: Budget,
    on_update: Callable[[Update], None],
) -> tuple[list[Update], Result]:
    updates: list[Update] = []
    with client.stream(data, model=model, budget=budget) as stream_:
        for update in stream_:
            updates.append(update)
            on_update(update)
        return updates, stream_.result
