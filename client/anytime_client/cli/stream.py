"""`anytime stream`: every exit's map as it comes, with a live table."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from anytime_client import render
from anytime_client.cli import options
from anytime_client.cli.predict import summary
from anytime_client.client import Client
from anytime_client.images import open_image
from anytime_client.output import (
    STANDARD,
    OutputFormat,
    encode_update,
    result_to_json,
    update_to_json,
    write,
)
from anytime_client.results import Result, Update
from anytime_protocol.budget import Budget
from anytime_protocol.validation import JsonObject


def stream(
    context: typer.Context,
    images: options.ImagePaths,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a file of each exit.")
    ] = None,
    form: options.FileFormat = OutputFormat.OVERLAY,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="PNG file with all exits and their times; of several images a folder."
        ),
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
    """Watch the maps of images get better, exit by exit; Ctrl-C cancels.

    With --json each exit is one line on standard output, and the result another.
    """
    files = options.ImageFiles.of(images)
    budget = options.limits(
        deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share, max_risk
    )
    failures = options.Failures(stop=files.is_one)
    with options.connect(context) as client:
        options.check_max_exit(client, model, max_exit)
        for path in files.paths:
            with failures.of(name := "stdin" if path == STANDARD else path):
                data = options.read_image(path)
                upright = open_image(data, name)
                follow = stream_as_json if as_json else stream_with_table
                updates = follow(client, data, model, budget, name)
                stem = Path(name).stem
                if out is not None:
                    for update in updates:
                        file = out / f"{stem}-exit{update.exit}{form.suffix}"
                        write(file, encode_update(update, upright, form))
                if sheet is not None:
                    save_sheet(sheet if files.is_one else sheet / f"{stem}.png", upright, updates)
    failures.exit()


_COLUMNS: Final[Mapping[str, Callable[[Update], str]]] = {
    "exit": lambda update: update.label.removeprefix("exit "),
    "elapsed ms": lambda update: f"{update.times.elapsed_ms:.1f}",
    "compute ms": lambda update: f"{update.times.compute_ms:.1f}",
    "GMACs": lambda update: f"{update.gmacs:.2f}",
    "confident": lambda update: f"{update.confidence:.3f}",
    "settled": lambda update: f"{update.confident_share:.1%}",
    "changed": lambda update: "" if update.changed_share is None else f"{update.changed_share:.1%}",
}
_NARROW: Final = 72
"""Columns of a terminal below which only part of a table is shown."""


def stream_as_json(
    client: Client, data: bytes, model: str | None, budget: Budget, name: str
) -> list[Update]:
    """All updates of an image, each a line of JSON on standard output, and the result another."""

    def write_line(fields: JsonObject) -> None:
        options.print_json({"image": name} | fields)

    updates, result = _collect(
        client, data, model, budget, lambda update: write_line(update_to_json(update))
    )
    write_line(result_to_json(result))
    return updates


def stream_with_table(
    client: Client, data: bytes, model: str | None, budget: Budget, name: str
) -> list[Update]:
    """All updates of an image, with a table on standard output that grows as they come."""
    console = Console()
    headings = list(_COLUMNS)
    if console.width < _NARROW:
        headings = ["exit", "elapsed ms", "confident"]
    # 80 columns are enough.
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.collapse_padding = False, False, True
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)

    def add_row(update: Update) -> None:
        table.add_row(*(_COLUMNS[heading](update) for heading in headings))

    live = Live(table, console=console) if console.is_terminal else nullcontext()
    with live:
        updates, result = _collect(client, data, model, budget, add_row)
    if not console.is_terminal:
        console.print(table)
    options.print_result(summary(result))
    return updates


def save_sheet(path: Path, image: Image.Image, updates: list[Update]) -> None:
    """Writes all exits side by side as one PNG file."""
    if not updates:
        options.print_note("no exit was made, so there is no sheet")
        return
    out = io.BytesIO()
    render.contact_sheet(image, updates).save(out, "PNG", optimize=True)
    write(path, out.getvalue())


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
