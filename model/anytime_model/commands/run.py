"""`anytime-model run`: see every exit's map over your own images, without a server."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from anytime_model.checkpoint import load_checkpoint
from anytime_model.engines.fitted import fit
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.pictures import contact_sheet, overlay, read_image


def run(
    weights: Annotated[Path, typer.Argument(help="One of our .safetensors files.")],
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.")],
    out: Annotated[Path, typer.Option(help="Folder for the overlays.")],
    masks: Annotated[
        bool, typer.Option("--masks/--no-masks", help="Skip pixels that are already certain.")
    ] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Run images through all exits and write NAME.exitK.png and NAME.exits.png to a folder."""
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    engine = fit(TorchEngine(checkpoint, device), card.input_side)
    out.mkdir(parents=True, exist_ok=True)
    table = Table("image", "exit", "ms", "mean confidence", "still active", title=card.name)
    for path in images:
        image = read_image(path)
        running = engine.begin(image)
        start = time.perf_counter()
        pictures = []
        for criterion in card.criteria():
            result = running.advance(criterion if masks else None)
            elapsed_ms = 1000 * (time.perf_counter() - start)
            pictures.append(overlay(image, engine.decode(result), card))
            pictures[-1].save(out / f"{path.stem}.exit{result.exit}.png")
            table.add_row(
                path.name,
                str(result.exit),
                f"{elapsed_ms:.0f}",
                f"{result.mean_confidence:.3f}",
                f"{100 * result.active_share:.0f} %",
            )
        contact_sheet(pictures).save(out / f"{path.stem}.exits.png")
    Console(width=100).print(table)
    typer.echo(f"Overlays are in {out}.")
