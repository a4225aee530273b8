"""Choosing the masks' threshold on held-out data, as the paper did by cross-validation.

One threshold serves all exits. Of those tried, the choice is the one that saves most while the
last exit loses no more than it may, compared with the best seen: a network that was trained with
masks is often better with some than with none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from anytime_model.anytime import AnytimeNetwork
from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.measure import Settings, measure
from anytime_model.evaluation.report import Report
from anytime_model.tasks import TASKS

CANDIDATES = {
    "segmentation": (0.998, 0.99, 0.98, 0.95, 0.9),
    "pose": (0.002, 0.005, 0.01, 0.02, 0.05),
}
"""From cautious to bold. For pose a larger threshold masks more, for segmentation a smaller one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and everything that was tried.

    Attributes:
        threshold: the choice; None where even the most cautious one lost too much.
        unmasked: the same network without masks.
        tried: each threshold with what it gave.
    """

    threshold: float | None
    unmasked: Report
    tried: tuple[tuple[float, Report], ...]


def choose(
    network: AnytimeNetwork,
    source: SampleSource,
    settings: Settings,
    *,
    allowed_loss: float,
    candidates: Sequence[float] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Choice:
    """Try thresholds from cautious to bold until the last exit loses too much.

    Args:
        network: as it will be shipped (temperatures folded in).
        source: held-out data.
        settings: how the network will be run; masks in them are replaced.
        allowed_loss: how much of the last exit's score may be lost, in 0 to 1.
        candidates: thresholds, most cautious first; by default the task's.
        tick: called after each image.
    """
    task = TASKS[source.task]
    name = next(iter(task.criteria))
    plain = replace(settings, criteria=None, criterion=None, thresholds=None)
    unmasked = measure(network, source, plain, model="", data="", tick=tick)
    best = unmasked.exits[-1].score
    tried: list[tuple[float, Report]] = []
    chosen = None
    for threshold in candidates or CANDIDATES[source.task]:
        criterion = task.criterion(name, threshold)
        masked = replace(
            settings,
            criteria=(criterion, criterion, criterion, None),
            criterion=name,
            thresholds=(threshold,) * 3,
        )
        report = measure(network, source, masked, model="", data="", tick=tick)
        tried.append((threshold, report))
        score = report.exits[-1].score
        best = max(best, score)
        if best - score > allowed_loss:
            break
        chosen = threshold
    return Choice(chosen, unmasked, tuple(tried))
