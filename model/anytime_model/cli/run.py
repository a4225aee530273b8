"""`anytime-model run`: every exit's map drawn over images, without a server."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.cli.options import DeviceOption, EngineOption, PrecisionOption
from anytime_model.cli.overlays import contact_sheet, overlay, read_image
from anytime_model.engines.select import Precision, make_engine


def run(
    weights: Annotated[Path, typer.Argument(help="One of our .safetensors files.")],
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.")],
    out: Annotated[Path, typer.Option(help="Folder for the overlays.")],
    masks: Annotated[
        bool, typer.Option("--masks/--no-masks", help="Skip pixels that are already certain.")
    ] = True,
    engine: EngineOption = None,
    precision: PrecisionOption = Precision.AUTO,
    device: DeviceOption = "cpu",
) -> None:
    """Run images through all exits and write NAME.exitK.png and NAME.exits.png to a folder."""
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    made = make_engine(checkpoint, engine, precision=precision, device=device)
    out.mkdir(parents=True, exist_ok=True)
    table = Table("image", "exit", "ms", "mean confidence", "still active", title=card.name)
    for path in images:
        image = read_image(path)
        running = made.begin(image)
        elapsed_s = 0.0  # of computing alone, not of drawing
        overlays = []
        for criterion in card.rung_criteria():
            began = time.perf_counter()
            result = running.advance(criterion if masks else None)
            decoded = made.decode(result)
            elapsed_s += time.perf_counter() - began
            overlays.append(overlay(image, decoded, card))
            overlays[-1].save(out / f"{path.stem}.exit{result.exit}.png")
            table.add_row(
                path.name,
                str(result.exit),
                f"{1000 * elapsed_s:.0f}",
                f"{result.mean_confidence:.3f}",
                f"{100 * result.active_share:.0f} %",
            )
        contact_sheet(overlays).save(out / f"{path.stem}.exits.png")
    Console(width=100).print(table)
    typer.echo(f"Overlays are in {out}.")
