"""`anytime-model flops`: multiply-adds per exit, as the paper's tables give them."""

import json
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from anytime_model.errors import ConfigError
from anytime_model.flops import GIGA, ConvCost, conv_costs, one_exit, per_exit
from anytime_model.networks.base import DEFAULT_FAMILY
from anytime_model.networks.base import family as find_family
from anytime_model.networks.hrnet.config import DEPTHS
from anytime_model.tasks import TASKS


class Exits(StrEnum):
    """How early exits are built."""

    ORIGINAL = "original"
    REDESIGNED = "redesigned"


class TaskOption(StrEnum):
    """Which task."""

    SEGMENTATION = "segmentation"
    POSE = "pose"


def flops(
    preset: Annotated[
        str, typer.Option(help="w18, w32 or w48; lite0 of lite; small or xl of mdeq.")
    ] = "w48",
    family: Annotated[
        str, typer.Option(help="hrnet, lite or mdeq; what HRNet's exits are is ignored by others.")
    ] = DEFAULT_FAMILY,
    exits: Annotated[
        Exits, typer.Option(help="Early exits: the paper's EE or RH.")
    ] = Exits.REDESIGNED,
    size: Annotated[str, typer.Option(help="Image size in px, HEIGHTxWIDTH.")] = "1024x2048",
    task: Annotated[TaskOption, typer.Option(help="Task.")] = TaskOption.SEGMENTATION,
    outputs: Annotated[
        int | None, typer.Option(help="Classes or joints.", show_default="19 or 16", min=1)
    ] = None,
    depths: Annotated[str, typer.Option(help="Halvings in redesigned exits 1, 2, 3.")] = "3,2,1",
    head_width: Annotated[
        int, typer.Option(help="Channels in redesigned exits; 0: the paper's.", min=0)
    ] = 0,
    masked: Annotated[
        str | None,
        typer.Option(
            help="Per cent of positions masked after exits 1, 2, 3, such as 19.3,38.4,63.0."
        ),
    ] = None,
    spread: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the masked share between images, in points. The paper does "
            "not state it; its table implies about 12. Without --masked it does nothing.",
            min=0,
        ),
    ] = 12.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count multiply-adds (in units of 2^30, the paper's "GFLOPs") up to each exit."""
    height, width = (int(n) for n in _numbers("--size", size, "x", 2))
    entries = {
        "preset": preset,
        "task": task.value,
        "exits": exits.value,
        "depths": [int(n) for n in _numbers("--depths", depths, ",", len(DEPTHS))],
        "head_width": head_width,
    }
    config = find_family(family).read(entries, outputs or TASKS[task].default_outputs)
    shares = [1.0] * (config.num_exits - 1)
    if masked is not None:
        shares = [1 - n / 100 for n in _numbers("--masked", masked, ",", len(shares))]
        if not all(0 <= s <= 1 for s in shares):
            raise ConfigError(f"--masked is {masked}; expected percentages from 0 to 100.")
    costs = conv_costs(config, height, width)
    paper = per_exit(costs, shares, partial(ConvCost.paper, spread=spread / 100 if masked else 0.0))
    executed = per_exit(costs, shares, ConvCost.executed)
    if as_json:
        report = {
            "family": family,
            "preset": preset,
            "task": task.value,
            "exits": exits.value,
            "size": [height, width],
            "outputs": config.outputs,
            "unit": "2^30 multiply-adds",
            "paper": [m / GIGA for m in paper],
            "executed": [m / GIGA for m in executed],
            "one_exit": one_exit(costs) / GIGA,
        }
        typer.echo(json.dumps(report))
        return
    exits_made = [f"exit {k}" for k in range(1, config.num_exits + 1)]
    table = Table("2^30 multiply-adds", *exits_made, title=f"{preset} at {size}")
    table.add_row("the paper's count", *(f"{m / GIGA:.2f}" for m in paper))
    table.add_row("executed", *(f"{m / GIGA:.2f}" for m in executed))
    table.add_row("one exit only", *[""] * len(shares), f"{one_exit(costs) / GIGA:.2f}")
    Console(width=100).print(table)


def _numbers(option: str, text: str, separator: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != count:
        example = separator.join(["N"] * count)
        raise ConfigError(f"{option} is {text!r}; expected {count} numbers as {example}.")
    return values
