"""The choice of the masks' threshold on held-out data, as the paper did by cross-validation.

One threshold serves all exits. Of those tried, the choice is the one that saves most while the
last exit loses no more than it may, compared with the best seen: a network that was trained with
masks is often better with some than with none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from anytime_model.data.sample import SampleSource
from anytime_model.evaluation.measure import MeasureSettings, measure
from anytime_model.evaluation.report import EvaluationReport
from anytime_model.networks.base import Network
from anytime_model.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and everything that was tried.

    Attributes:
        threshold: the choice; None where even the one that masks least lost too much.
        unmasked: the same network without masks.
        tried: each threshold with what it gave.
    """

    threshold: float | None
    unmasked: EvaluationReport
    tried: tuple[tuple[float, EvaluationReport], ...]


def choose(
    network: Network,
    source: SampleSource,
    settings: MeasureSettings,
    *,
    allowed_loss: float,
    candidates: Sequence[float] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Choice:
    """Try thresholds that mask more and more until the last exit loses too much.

    Args:
        network: as it will be shipped (temperatures folded in).
        source: held-out data.
        settings: how the network will be run; masks in them are replaced.
        allowed_loss: how much of the last exit's score may be lost, in 0 to 1.
        candidates: thresholds, from the one that masks least; by default the task's.
        tick: called after each image.
    """
    task = TASKS[source.task]
    name = task.first_criterion
    early = network.config.num_exits - 1
    plain = replace(settings, criteria=None, criterion=None, thresholds=None)
    unmasked = measure(network, source, plain, model="", data="", tick=tick)
    best = unmasked.exits[-1].score
    tried: list[tuple[float, EvaluationReport]] = []
    chosen = None
    for threshold in candidates or task.thresholds:
        criterion = task.criterion(name, threshold)
        masked = replace(
            settings,
            criteria=(*(criterion,) * early, None),
            criterion=name,
            thresholds=(threshold,) * early,
        )
        report = measure(network, source, masked, model="", data="", tick=tick)
        tried.append((threshold, report))
        score = report.exits[-1].score
        best = max(best, score)
        if best - score > allowed_loss:
            break
        chosen = threshold
    return Choice(chosen, unmasked, tuple(tried))
