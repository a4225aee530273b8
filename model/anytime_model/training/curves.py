"""Curves of a training: rows of a CSV file, and a plot of them.

After a resume the rows that the resumed training will make again are dropped first.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


class Curves:
    """A CSV file with a column for each of a fixed set of names, the first being `step`.

    Args:
        path: the file; made if need be.
        columns: names after `step`.
        step: rows of later steps than this are dropped.
        start: another file whose rows come first, for a training that branches off another.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], step: int, start: Path | None = None
    ) -> None:
        self._path = path
        self._columns = ("step", *columns)
        kept: list[dict[str, str]] = []
        for source in (start, path):
            if source is not None and source.exists():
                kept = [row for row in read(source) if int(row["step"]) <= step]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row after `step` steps."""
        row = {name: f"{value:.6g}" for name, value in values.items()}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow({"step": step, **row})


def read(path: Path) -> list[dict[str, str]]:
    """All rows of a curves file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(path: Path, plot: Path, metric: str) -> None:
    """Draw a curves file: each exit's loss and its score on the check split, over epochs.

    Args:
        path: the CSV file.
        plot: where to; its suffix says the format.
        metric: what the scores are.
    """
    rows = read(path)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    per_epoch = max((int(r["step"]) / int(r["epoch"]) for r in rows if r["check_1"]), default=1.0)
    num_exits = sum(column.startswith("check_") for column in rows[0]) if rows else 0
    for axes, column, title, factor in (
        (panels[0], "loss", "training loss", 1),
        (panels[1], "check", f"{metric} on held-out data (%), unmasked, scale 1", 100),
    ):
        for k in range(1, num_exits + 1):
            points = [
                (int(row["step"]) / per_epoch, factor * float(row[f"{column}_{k}"]))
                for row in rows
                if row[f"{column}_{k}"]
            ]
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, values, marker="." if factor > 1 else "", label=f"exit {k}")
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(plot, dpi=150)
