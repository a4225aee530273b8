"""`anytime bench`: latencies of a running server, as a client sees them."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from anytime_client.cli import options
from anytime_client.client import Client
from anytime_protocol.budget import Budget

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """One request: times in ms as the client measured them, and what was served."""

    first_ms: float
    total_ms: float
    server_ms: float
    exit: int
    reason: str


def bench(
    context: typer.Context,
    image: options.ImagePath,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="How many.")] = 50,
    together: Annotated[
        int, typer.Option("--together", "-c", min=1, max=64, help="How many at a time.")
    ] = 1,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="Not counted.")] = 3,
    model: options.Model = None,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure first map and whole answer over many requests."""
    data = options.read_image(image)
    budget = Budget(deadline_ms=deadline_ms, max_exit=max_exit)
    with options.connect(context) as client:
        options.check_max_exit(client, model, max_exit)
        for _ in range(warm_up):
            client.predict(data, model=model, max_exit=max_exit)
        began = time.perf_counter()
        with ThreadPoolExecutor(together) as pool:
            samples = list(
                pool.map(lambda _: _measure(client, data, model, budget), range(requests))
            )
        seconds = time.perf_counter() - began
    figures = _figures(samples, seconds, deadline_ms)
    if as_json:
        options.print_json(figures)
        return
    table = Table("ms", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.collapse_padding = True
    for heading in (*(f"p{p}" for p in PERCENTILES), "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in ("first_ms", "total_ms", "server_ms"):
        row = figures[name]
        cells = [row[f"p{p}"] for p in PERCENTILES]
        table.add_row(name.removesuffix("_ms"), *(f"{v:.1f}" for v in cells), f"{row['mean']:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"{figures['per_second']:.1f} requests a second; exits served: {figures['exits']}; "
        f"ends: {figures['reasons']}",
        highlight=False,
    )
    if "within_deadline" in figures:
        console.print(f"answered within the deadline: {figures['within_deadline']:.1%}")


def _measure(client: Client, data: bytes, model: str | None, budget: Budget) -> AnswerTimes:
    began = time.perf_counter()
    first_ms = None
    with client.stream(data, model=model, budget=budget) as stream:
        for _ in stream:
            if first_ms is None:
                first_ms = 1000 * (time.perf_counter() - began)
        result = stream.result
    total_ms = 1000 * (time.perf_counter() - began)
    first = total_ms if first_ms is None else first_ms
    return AnswerTimes(first, total_ms, result.timing.total_ms, result.exit, str(result.reason))


def _figures(
    samples: list[AnswerTimes], seconds: float, deadline_ms: float | None
) -> dict[str, Any]:
    figures: dict[str, Any] = {"requests": len(samples)}
    for name in ("first_ms", "total_ms", "server_ms"):
        values = np.array([getattr(sample, name) for sample in samples])
        row = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}
        figures[name] = row | {"mean": round(float(values.mean()), 3)}
    figures["per_second"] = len(samples) / seconds
    figures["exits"] = dict(sorted(Counter(sample.exit for sample in samples).items()))
    figures["reasons"] = dict(Counter(sample.reason for sample in samples))
    if deadline_ms is not None:
        met = sum(sample.server_ms <= deadline_ms for sample in samples)
        figures["within_deadline"] = met / len(samples)
    return figures
