"""How wrong forecasts are at image sizes that were not profiled, before the server has learnt.

Profiles models as the server does at its start, and compares what they forecast for images of other
sizes with what the engine then takes (the median of some runs, everything active): with the sizes
that are profiled, and with the profile's first one alone, as a scale for what the others bring.
Images are reduced first as the server does it while it decodes them, which it forecasts apart.

    python bench/forecast.py --models camvid-lite,camvid-w18,lspet-w18
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from anytime_model.engines.native.memory import MemoryBudget
from anytime_server import images
from anytime_server.executor.loading import load, profile
from anytime_server.executor.messages import WorkerSettings
from anytime_server.image_headers import ImageHeader

ROOT = Path(__file__).parents[1]


def size(text):
    """HEIGHTxWIDTH as two numbers."""
    height, width = text.split("x")
    return int(height), int(width)


def forecast(costs, at):
    """Seconds to each exit of an image of (H, W) px, everything active."""
    stages = costs.stages(costs.computed_sizes(*at))
    return np.cumsum([stage.seconds(1.0) for stage in stages])


def measure(engine, at, costs, rounds):
    """Median seconds to each exit."""
    pixels = np.random.default_rng(0).integers(0, 256, (*at, 3), dtype=np.uint8)
    header = ImageHeader("image/png", *at)
    image = images.decode(pixels, header, max(costs.sides, default=None)).image
    engine.prepare(image.shape[:2])
    rows = []
    for _ in range(1 + rounds):
        began = time.perf_counter()
        run = engine.begin(image)
        row = []
        for exit_ in range(1, costs.exits + 1):
            run.advance(None, lambda: None, rung=exit_)  # asked whether to stop, as in the server
            row.append(time.perf_counter() - began)
        rows.append(row)
    return [statistics.median(column) for column in zip(*rows[1:], strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights")
    parser.add_argument("--models", default="camvid-lite,camvid-w18,lspet-w18")
    parser.add_argument("--profile-size", type=size, default=(360, 480), help="HEIGHTxWIDTH, px")
    parser.add_argument("--sizes", default="180x240,360x480,600x800,1080x1920")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    models = tuple(arguments.models.split(","))
    sizes = [size(text) for text in arguments.sizes.split(",")]
    settings = WorkerSettings(arguments.weights, models, "auto", "cpu", 0, arguments.profile_size)
    loaded = load(settings, MemoryBudget())
    table = Table(title="forecast over measured time, first and last exit")
    for column in ("model", "size", "last exit, ms", "as profiled", "from one size"):
        table.add_column(column, justify="right")
    for name, model in track(loaded.items(), "models", console=Console(stderr=True)):
        costs = profile(model, arguments.profile_size).profile
        for at in sizes:
            measured = measure(model.engine, at, costs, arguments.rounds)
            ratios = [
                forecast(kind, at) / measured
                for kind in (costs, replace(costs, sizes=costs.sizes[:1]))
            ]
            cells = [f"{ratio[0]:.2f}, {ratio[-1]:.2f}" for ratio in ratios]
            table.add_row(name, "x".join(map(str, at)), f"{1e3 * measured[-1]:.1f}", *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
