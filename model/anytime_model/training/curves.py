"""Curves of a training: rows of a CSV file, and TensorBoard's events where it is installed.

It appends rows. After a resume it first drops the rows that the resumed training will make again,
so that a curve never runs twice over the same steps.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path


class Curves:
    """A CSV file with a column for each of a fixed set of names, the first being `step`.

    Args:
        path: the file; made if need be.
        columns: names after `step`.
        step: rows of later steps than this are dropped.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], step: int) -> None:
        self._path = path
        self._columns = ("step", *columns)
        kept: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row after `step` steps."""
        row = {name: f"{value:.6g}" for name, value in values.items()}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow({"step": step, **row})
