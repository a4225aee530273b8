"""`anytime stream`: every exit's map as it comes, with a live table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.live import Live
from rich.table import Table

from anytime_client import painting
from anytime_client.blocking import Client
from anytime_client.commands import options
from anytime_client.commands.predict import summary
from anytime_client.images import open_picture
from anytime_client.results import Result, Update
from anytime_client.saving import Form, describe, describe_result, render, write
from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.enums import Encoding

_SUFFIXES = {Form.MASK: "png", Form.OVERLAY: "png", Form.NPY: "npy", Form.JSON: "json"}


def stream(
    context: typer.Context,
    image: options.ImagePath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a file of each exit.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--form", "-f", help="What the files of --out hold.")
    ] = Form.OVERLAY,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="PNG file with all exits and their times.")
    ] = None,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    compute_gmacs: options.ComputeGmacs = None,
    min_confidence: options.MinConfidence = None,
    confident_share: options.ConfidentShare = None,
    as_json: options.AsJson = False,
) -> None:
    """Watch the map of one image get better, exit by exit; Ctrl-C cancels.

    With --json each exit is one line on standard output, and the result another.
    """
    data, name = options.read_image(image)
    picture = open_picture(data)
    budget = options.limits(deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share)
    with options.connection(context).open() as client:
        if as_json:
            updates, result = follow(
                client, data, model, budget, lambda u: options.say(describe(u))
            )
            options.say(describe_result(result))
        else:
            updates, result = follow_live(client, data, model, budget, name)
    for update in updates if out is not None else ():
        path = str(Path(out or ".") / f"{Path(name).stem}-exit{update.exit}.{_SUFFIXES[form]}")
        write(path, render(update, picture, form))
    if sheet is not None:
        save_sheet(sheet, picture, updates)


def follow(
    client: Client,
    data: bytes,
    model: str | None,
    budget: Budget,
    show: Callable[[Update], None],
) -> tuple[list[Update], Result]:
    """All updates of an image, each shown as it comes, and the result."""
    want = OutputOptions(encoding=Encoding.DELTA)
    updates: list[Update] = []
    with client.stream(data, model=model, budget=budget, want=want) as running:
        for update in running:
            updates.append(update)
            show(update)
        return updates, running.result


def follow_live(
    client: Client, data: bytes, model: str | None, budget: Budget, name: str
) -> tuple[list[Update], Result]:
    """The same, with a table on standard error that grows as the updates come."""
    console = options.to_people()
    table = Table(title=name, title_justify="left")
    for column in ("exit", "elapsed ms", "compute ms", "GMACs", "confidence", "settled", "changed"):
        table.add_column(column, justify="right")

    def show(update: Update) -> None:
        changed = "" if update.changed_share is None else f"{update.changed_share:.1%}"
        table.add_row(
            f"{update.exit}/{update.exits}",
            f"{update.times.elapsed_ms:.1f}",
            f"{update.times.compute_ms:.1f}",
            f"{update.gmacs:.2f}",
            f"{update.confidence:.3f}",
            f"{update.confident_share:.1%}",
            changed,
        )

    live = Live(table, console=console) if console.is_terminal else nullcontext()
    with live:
        updates, result = follow(client, data, model, budget, show)
    if not console.is_terminal:
        console.print(table)
    options.remark(summary(result))
    return updates, result


def save_sheet(path: Path, picture: Image.Image, updates: list[Update]) -> None:
    """Writes all exits side by side as one PNG file."""
    if not updates:
        options.remark("no exit was made, so there is no sheet")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    painting.sheet(picture, updates).save(path, "PNG", optimize=True)
