"""`anytime-model convert`: turn a published checkpoint into one of ours."""

from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Annotated

import typer

from anytime_model.checkpoint.card import Card, Masking
from anytime_model.checkpoint.importer import import_checkpoint
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.cli.flops import Exits, TaskOption
from anytime_model.errors import ConfigError
from anytime_model.labels import Label
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.tasks import TASKS


def convert(
    published: Annotated[
        Path, typer.Argument(help="An ADP-C or HRNet checkpoint (.pth, .safetensors).")
    ],
    out: Annotated[Path, typer.Option(help="The file to write; its manifest.toml gets an entry.")],
    preset: Annotated[str, typer.Option(help="w18, w32 or w48.")],
    exits: Annotated[Exits, typer.Option(help="Early exits of the network.")] = Exits.REDESIGNED,
    task: Annotated[TaskOption, typer.Option(help="Task.")] = TaskOption.SEGMENTATION,
    outputs: Annotated[
        int | None, typer.Option(help="Classes or joints.", show_default="19 or 16", min=1)
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Names of classes or joints, separated by commas.")
    ] = "",
    head_width: Annotated[
        int, typer.Option(help="Channels in redesigned exits; 0: the paper's.", min=0)
    ] = 0,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Confidence from which a pixel is masked, after each exit but the last; the paper "
            "has 0.998, for joints 0.002. Without it every exit computes all pixels.",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
) -> None:
    """Convert a published checkpoint to float16 safetensors with a manifest entry.

    Says which parts the file does not bring and that therefore need training.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out is {out}; expected a name that ends in .safetensors.")
    names = [name.strip() for name in labels.split(",")] if labels else []
    count = outputs or len(names) or TASKS[task].default_outputs
    if names and len(names) != count:
        raise ConfigError(f"--labels has {len(names)} names; expected {count}, as --outputs says.")
    config = NetworkConfig(preset, count, task=task.value, exits=exits.value, head_width=head_width)
    masking = None
    if threshold is not None:
        early = config.num_exits - 1
        masking = Masking(TASKS[task].first_criterion, (threshold,) * early)
    imported = import_checkpoint(published, config)
    output = TASKS[task].metric.output_label
    names = names or [f"{output} {i}" for i in range(count)]
    card = Card(
        name=out.stem,
        file=out.name,
        sha256="",
        config=config,
        labels=tuple(Label(n, _color(i, count)) for i, n in enumerate(names)),
        masking=masking,
        licence=licence,
        description=f"Converted from {imported.source.value} ({published.name}).",
    )
    save_checkpoint(imported.network, card, out.parent)
    typer.echo(f"{out}: {imported.source.value}, as {preset} with {count} outputs.")
    if imported.untrained:
        parts = ", ".join(imported.untrained_parts)
        typer.echo(f"Not in the file, so left as initialised and in need of training: {parts}.")
    elif masking is None:
        typer.echo(
            "It has no masks, so every exit computes all pixels. Convert it with --threshold to "
            "give it some, or with a promise, for requests with max_risk: anytime-model calibrate "
            f"--weights {out} --data FOLDER --record"
        )


def _color(index: int, count: int) -> str:
    """Colours around the hue circle, so that neighbours differ."""
    r, g, b = hsv_to_rgb(index / count, 0.75, 0.9)
    return f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}"
