"""The measurement of a ladder: every rung scored as it is served, along every way up.

A rung's map depends on what was made before it, so its quality belongs to a *path*. Those that are
measured leave each size but the last after any of its exits, and may pass over sizes between the
first and the last one. Where exits may be left out, there are also those that go from the first
exit of the smallest size straight to the one after which they leave it, and from there on make
every exit or the first of the next size and the last of all; and those that make one rung at most
between the first and the last of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Final

import torch
from rich.table import Table
from torch import Tensor

from anytime_model.checkpoint.card import Card, Quality, RungPath
from anytime_model.checkpoint.manifest import check_sides, write_card
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.data.loading import collate
from anytime_model.data.sample import Sample, SampleSource
from anytime_model.engines.ladder import LadderEngine, RungResult
from anytime_model.engines.select import Precision, make_engine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.measure import check_fit, evenly
from anytime_model.evaluation.report import optional
from anytime_model.evaluation.run import MaskOptions, open_data, with_masks
from anytime_model.evaluation.scores import Lost, Scorer, scorer
from anytime_model.flops import GIGA
from anytime_model.networks.base import FamilyConfig

MOST_PATHS: Final = 175
"""Paths that are measured: those of four sizes with four exits each that may be left out."""

Rungs = tuple[int, ...]
"""Numbers of rungs that are made, rising from 1."""


def measured_paths(config: FamilyConfig, num_sides: int) -> tuple[Rungs, ...]:
    """The paths that are measured, each to the last rung; the first one makes every rung.

    Args:
        config: of the network.
        num_sides: sizes of the ladder.
    """
    num_exits = config.num_exits
    choices = [range(num_exits, -1, -1)] * num_sides
    choices[0] = range(num_exits, 0, -1)
    choices[-1] = range(num_exits, num_exits + 1)
    paths = [
        tuple(size * num_exits + k for size, made in enumerate(exits) for k in range(1, made + 1))
        for exits in product(*choices)
    ]
    if config.may_skip_exits:
        last = num_exits * num_sides
        for path in tuple(paths):
            left = sum(rung <= num_exits for rung in path)
            paths.append((1, *path[max(left - 1, 1) :]))
        paths += [(1, last), *((1, rung, last) for rung in range(2, last))]
        later = range(num_exits + 1, last, num_exits)
        paths += [(1, rung, first, last) for first in later for rung in range(2, num_exits + 1)]
    return tuple(dict.fromkeys(paths))


def paths_of(card: Card) -> tuple[Rungs, ...]:
    """`measured_paths` of a model.

    Raises:
        ConfigError: its ladder has too many paths.
    """
    paths = measured_paths(card.config, max(len(card.sides), 1))
    if len(paths) > MOST_PATHS:
        raise ConfigError(
            f"{len(card.sides)} sizes have {len(paths)} paths; expected at most {MOST_PATHS}. "
            "Measure fewer sizes."
        )
    return paths


@dataclass(frozen=True, slots=True)
class RungScores:
    """The last rung of a path, over all images.

    Attributes:
        rung: its number, from 1.
        side: px to which the longer side of images was brought.
        exit: of the network.
        score: mIoU, or PCKh@0.5; 0 to 1.
        second: share of pixels right, or PCK@0.2 of the torso; 0 to 1.
        masked: share of positions that need no more work at this size, 0 to 1.
        confidence: mean over the images of `Task.mean_confidence`, 0 to 1.
        macs: mean multiply-adds that the path executed up to this rung.
        calibration_error: ECE of the confidence, 0 to 1; None for pose.
        failure_ranking: chance that a right pixel is more confident than a wrong one, 0 to 1; None
            for pose.
        lost: share of the pixels that were right at the rung before and are wrong at this one; None
            at the first, and for pose.
    """

    rung: int
    side: int
    exit: int
    score: float
    second: float
    masked: float
    confidence: float
    macs: float
    calibration_error: float | None
    failure_ranking: float | None
    lost: float | None


@dataclass(frozen=True, slots=True)
class LadderReport:
    """The evaluation of a ladder.

    Attributes:
        model: name of the model.
        data: name of the data set and split.
        metric: what `score` is.
        images: how many.
        precision: what convolutions computed in.
        engine: what computed.
        paths: the rungs of each path, `measured_paths` in their order; all rungs first.
    """

    model: str
    data: str
    metric: str
    images: int
    precision: str
    engine: str
    paths: tuple[tuple[RungScores, ...], ...]

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def quality(self) -> Quality:
        """What a card quotes."""
        paths = tuple(
            RungPath(tuple(r.rung for r in path), tuple(round(r.score, 4) for r in path))
            for path in self.paths
        )
        return Quality(
            self.metric, paths[0].quality, self.data, precision=self.precision, paths=paths
        )

    def table(self) -> Table:
        """The whole ladder for a terminal, one row a rung."""
        table = Table(
            title=f"{self.model} on {self.data}: {self.images} images, {self.engine}",
            caption="all rungs made; ECE: expected calibration error; AUROC: chance that a right "
            "pixel is more confident than a wrong one; lost: right at the rung before, wrong now",
        )
        columns = ("rung", "side", "exit", self.metric, "GMACs", "masked", "confidence")
        for column in (*columns, "ECE", "AUROC", "lost"):
            table.add_column(column, justify="right")
        for r in self.paths[0]:
            table.add_row(
                str(r.rung),
                str(r.side),
                str(r.exit),
                _percent(r.score),
                f"{r.macs / GIGA:.2f}",
                _percent(r.masked),
                _percent(r.confidence),
                _percent(r.calibration_error),
                _percent(r.failure_ranking),
                _percent(r.lost),
            )
        return table

    def paths_table(self) -> Table:
        """Every path for a terminal, one row each: the score of each rung, and the whole cost."""
        table = Table(title=f"{self.metric} along each path, after each side and exit")
        for r in self.paths[0]:
            table.add_column(f"{r.side}\n{r.exit}", justify="right")
        table.add_column("GMACs", justify="right")
        for path in self.paths:
            made = {r.rung: _percent(r.score) for r in path}
            scores = (made.get(r.rung, "-") for r in self.paths[0])
            table.add_row(*scores, f"{path[-1].macs / GIGA:.2f}")
        return table


@dataclass(frozen=True, slots=True)
class LadderEvaluation:
    """An engine, data and masks, opened and checked.

    Attributes:
        engine: that serves, along the ladder of its card.
        source: the split.
        data_name: for people.
        masked: the card, with the masks to run with.
        monotone: whether each map is the product of those before it, see `LadderEngine.begin`.
    """

    engine: LadderEngine
    source: SampleSource
    data_name: str
    masked: Card
    monotone: bool = False


def prepare(
    weights: Path,
    data: Path,
    split: str,
    masks: MaskOptions,
    *,
    sides: tuple[int, ...] | None = None,
    monotone: bool = False,
    precision: Precision | str = Precision.AUTO,
    device: str = "cpu",
    engine: str | None = None,
) -> LadderEvaluation:
    """Open weights and data.

    Args:
        weights: one of our files, with its manifest beside it.
        data: a data set's folder; which one is recognised by its layout.
        split: such as test.
        masks: how to mask.
        sides: of the ladder, px; the card's by default.
        monotone: make each map the product of those before it, see `LadderEngine.begin`.
        precision: what convolutions compute in; by default what is served.
        device: of the torch engine.
        engine: what computes, see `engines.select`; None asks the environment, as the server does.

    Raises:
        CheckpointError: the weights cannot be used.
        DataError: the data set is not laid out as expected.
        ConfigError: there is no ladder or too long a one, or weights and data do not fit together.
    """
    checkpoint = load_checkpoint(weights)
    card = checkpoint.card
    try:
        card = replace(card, sides=card.sides if sides is None else check_sides(sides))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if card.sides != checkpoint.card.sides:
        card = replace(card, certificates=())  # they are of the other ladder
    if not card.sides:
        raise ConfigError(f"the card of {card.name} has no ladder; give --sides, such as 240,480.")
    source, data_name = open_data(data, split)
    check_fit(card.config, source)
    made = make_engine(replace(checkpoint, card=card), engine, precision=precision, device=device)
    return LadderEvaluation(made, source, data_name, with_masks(card, masks), monotone)


def run(
    evaluation: LadderEvaluation,
    limit: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> LadderReport:
    """Measure every path.

    Args:
        evaluation: see `prepare`.
        limit: only so many images, evenly spaced.
        tick: called after each image.

    Raises:
        ConfigError: the ladder has too many paths.
    """
    engine, card = evaluation.engine, evaluation.engine.card
    paths = paths_of(card)
    ends = {path[:n]: _End(scorer(evaluation.source)) for path in paths for n in _lengths(path)}
    images = 0
    for sample in evenly(evaluation.source, limit):
        _add(evaluation, sample, paths, ends)
        images += 1
        tick()
    return LadderReport(
        model=card.name,
        data=evaluation.data_name,
        metric=card.task.metric.label,
        images=images,
        precision=engine.dtype,
        engine=engine.name,
        paths=tuple(
            tuple(ends[path[:n]].scores(path[n - 1], card, images) for n in _lengths(path))
            for path in paths
        ),
    )


def record(evaluation: LadderEvaluation, report: LadderReport, folder: Path) -> Card:
    """Write the ladder and a report's scores into the manifest beside the weights.

    Raises:
        ConfigError: the scores are of monotone maps, which are made on request only.
    """
    if evaluation.monotone:
        raise ConfigError("a card quotes maps as they are served by default; leave out --monotone.")
    card = evaluation.engine.card.with_quality(report.quality())
    write_card(folder, card)
    return card


@dataclass(slots=True)
class _End:
    """What is accumulated for the last rung of a path."""

    scorer: Scorer
    masked: float = 0.0
    lost: Lost = field(default_factory=Lost)
    confidence: float = 0.0
    macs: int = 0

    def scores(self, rung: int, card: Card, images: int) -> RungScores:
        size, before = divmod(rung - 1, card.config.num_exits)
        return RungScores(
            rung=rung,
            side=card.sides[size],
            exit=before + 1,
            score=self.scorer.score,
            second=self.scorer.second,
            masked=self.masked / images,
            confidence=self.confidence / images,
            macs=self.macs / images,
            calibration_error=self.scorer.calibration_error,
            failure_ranking=optional(self.scorer.failure_ranking),
            lost=self.lost.share,
        )


def _add(
    evaluation: LadderEvaluation,
    sample: Sample,
    paths: Iterable[Rungs],
    ends: dict[Rungs, _End],
) -> None:
    """Run one image along each path, and score the end of each way once."""
    engine, batch = evaluation.engine, collate([sample])
    task, criteria = engine.card.task, evaluation.masked.rung_criteria()
    right: dict[Rungs, Tensor | None] = {}
    for path in paths:
        climbing, macs = engine.begin(sample.image, monotone=evaluation.monotone), 0
        for n in _lengths(path):
            rung = path[n - 1]
            result: RungResult = climbing.advance(criteria[rung - 1], rung=rung)
            macs += result.macs
            if path[:n] in right:
                continue
            end = ends[path[:n]]
            confidence = torch.from_numpy(result.at_source(result.confidence[result.inside]))[None]
            now = end.scorer.add_decoded(engine.decode(result), confidence, batch)
            end.lost.add(right.get(path[: n - 1]), now, batch)
            right[path[:n]] = now
            end.masked += 1 - result.active_share
            end.confidence += task.mean_confidence(result)
            end.macs += macs


def _lengths(path: Rungs) -> range:
    return range(1, len(path) + 1)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
