"""The result of a simulation, and several results as a table.

Attainment is counted over all arrivals but those that their own client cancelled, and stands beside
the mean quality over the same requests, a refused, failed or late one counting zero: a server that
refuses much or answers poorly looks as bad as it is (arXiv 2410.14257).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple


class Percentiles(NamedTuple):
    """Median, 95th and 99th percentile of some times, in seconds; NaN where there are none."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one simulation.

    Attributes:
        strategy: its name.
        arrivals: requests that arrived and are counted, those cancelled by their clients included.
        duration_s: time in which they did.
        replicas: executors.
        router: chose one of them for each request.
        refused: refused requests, by error code.
        failed: admitted requests that got no map in time.
        late: answers that came after their deadline.
        cancelled: requests that their clients cancelled, refused ones left out.
        endings: finished requests by reason.
        exits: answers in time by exit, from exit 1.
        attainment: share, 0 to 1, of all arrivals but cancelled ones, answered in time.
        quality: mean quality over the same requests; a refused, failed or late one counts zero.
        deepest: share of the answers in time, 0 to 1, that are as deep as an oracle would have gone
            that knows all times and has the machine to itself.
        first_exit_s: time from arrival to the first map.
        answer_s: time from arrival to the answer.
        busy: share of the time, 0 to 1, in which the executors computed.
        wasted: share of that time, 0 to 1, that led to nothing a client got in time.
        replica_s: seconds of that time for which replicas were there, started or starting, in all.
        died: replicas that failed in it.
    """

    strategy: str
    arrivals: int
    duration_s: float
    replicas: int
    router: str
    refused: dict[str, int]
    failed: int
    late: int
    cancelled: int
    endings: dict[str, int]
    exits: tuple[int, ...]
    attainment: float
    quality: float
    deepest: float
    first_exit_s: Percentiles
    answer_s: Percentiles
    busy: float
    wasted: float
    replica_s: float = 0.0
    died: int = 0

    @property
    def cost_s(self) -> float:
        """Seconds of a replica for each answer in time; NaN where there are none."""
        served = sum(self.exits)
        return self.replica_s / served if served else math.nan

    @property
    def mean_exit(self) -> float:
        """Mean exit of the answers in time; NaN where there are none."""
        served = sum(self.exits)
        total = sum(exit_ * count for exit_, count in enumerate(self.exits, start=1))
        return total / served if served else math.nan


_COLUMNS: Final = (
    *("policy", "router", "replicas"),
    *("arrivals", "per s", "attained", "quality", "refused", "failed", "late"),
    *("exits %", "mean exit"),
    *("first p50", "first p99", "answer p99", "busy", "wasted", "mean replicas", "ms per kept"),
)


_NAMES: Final = 2
"""Columns of words."""


def table(reports: Sequence[Report]) -> str:
    """Reports side by side, as text with aligned columns; times in ms.

    `exits %` are the shares of the answers in time by exit, from exit 1.
    """
    rows = [list(_COLUMNS), *(_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < _NAMES else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def percentiles(times_s: Iterable[float | None]) -> Percentiles:
    """Percentiles by the nearest rank; None is left out."""
    ranked = sorted(time_s for time_s in times_s if time_s is not None)
    if not ranked:
        return Percentiles(math.nan, math.nan, math.nan)
    return Percentiles(
        *(ranked[max(math.ceil(share * len(ranked)) - 1, 0)] for share in (0.50, 0.95, 0.99))
    )


def _row(report: Report) -> list[str]:
    return [
        report.strategy,
        report.router,
        str(report.replicas),
        str(report.arrivals),
        f"{report.arrivals / report.duration_s:.2f}",
        f"{report.attainment:.2%}",
        f"{report.quality:.3f}",
        str(sum(report.refused.values())),
        str(report.failed),
        str(report.late),
        _shares(report.exits),
        f"{report.mean_exit:.2f}" if sum(report.exits) else "-",
        f"{report.first_exit_s.p50 * 1e3:.0f}",
        f"{report.first_exit_s.p99 * 1e3:.0f}",
        f"{report.answer_s.p99 * 1e3:.0f}",
        f"{report.busy:.1%}",
        f"{report.wasted:.1%}",
        f"{report.replica_s / report.duration_s:.1f}",
        f"{report.cost_s * 1e3:.0f}" if sum(report.exits) else "-",
    ]


def _shares(exits: Sequence[int]) -> str:
    if not sum(exits):
        return "-"
    return "/".join(f"{100 * count / sum(exits):.0f}" for count in exits)
