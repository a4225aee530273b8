"""Masks with a promise: thresholds under which settled pixels rarely differ from the whole network.

**The loss of an image** is, of the pixels that an answer calls settled, the share whose class there
differs from the one that the same model without masks gives them at its last rung; of all rungs
before the last, and of all ways up the ladder, the worst. So the promise is about every answer, at
whatever rung a request ends. An image without a settled pixel loses nothing. Labels play no part.

**The promise** is about the mean of this loss over images: "with 95 % confidence it is at most
1 %". The unit is the image, as the pixels of one image are not independent; neither are the frames
of one clip, and there the number of images overstates what is known. It holds for images drawn like
those that were calibrated on: held-out frames of drives that were trained on say little about new
drives.

**Thresholds** are chosen by fixed-sequence testing (Angelopoulos et al., "Learn then Test", 2021,
arXiv 2110.01052): in an order that does not depend on the data, from the one that masks least, each
is tested at the whole level, until one fails; the last that passed is the choice. The test is
`bounds.p_value`. Jazbec et al., "Fast yet Safe" (2024, arXiv 2405.20915), do this for the exits of
networks like ours, one threshold for whole images.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from anytime_model.checkpoint.card import Card, Certificate, Masking
from anytime_model.checkpoint.manifest import write_card
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.confidence import Criterion
from anytime_model.data.sample import Sample, SampleSource
from anytime_model.engines.ladder import LadderEngine, RungResult
from anytime_model.engines.select import Precision, make_engine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.bounds import images_needed, p_value, upper_bound
from anytime_model.evaluation.ladder import Rungs, paths_of
from anytime_model.evaluation.measure import check_fit, evenly
from anytime_model.evaluation.run import open_data
from anytime_model.results import SegmentationMap

CANDIDATES: Final = (0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.9)
"""Largest probabilities beyond which a pixel may be settled, from the one that masks least."""

Thresholds = tuple[float, ...]
"""Of the criterion after each exit but the last."""


def staircase(candidates: Sequence[float], early_exits: int) -> Iterator[Thresholds]:
    """The thresholds to test, in order: from candidate to candidate, the last exit's first.

    Args:
        candidates: from the one that masks least.
        early_exits: exits but the last.
    """
    yield (candidates[0],) * early_exits
    for stricter, laxer in pairwise(candidates):
        for lax in range(1, early_exits + 1):
            yield (stricter,) * (early_exits - lax) + (laxer,) * lax


@dataclass(frozen=True, slots=True)
class RiskChoice:
    """What was found for one risk.

    Attributes:
        risk: that the mean loss is to be below.
        thresholds: the last that passed; None where not even the first did.
        losses: (n,) with these thresholds, or with the first ones where none passed.
        failed: the first thresholds that did not pass; None where all did.
    """

    risk: float
    thresholds: Thresholds | None
    losses: NDArray[np.float64]
    failed: Thresholds | None


def choose(
    losses: Callable[[Thresholds], NDArray[np.float64]],
    sequence: Sequence[Thresholds],
    *,
    risk: float,
    confidence: float,
    largest_loss: float = 1.0,
) -> RiskChoice:
    """Test thresholds in order until one fails.

    Args:
        losses: (n,) losses of independent images with some thresholds, 0 to 1.
        sequence: thresholds, in an order that was fixed before the images were seen.
        risk: that the mean loss is to be below, above 0.
        confidence: that it is, between 0 and 1.
        largest_loss: that one image counts; larger ones are cut off, and the promise is about the
            mean of what is left. Few images prove more then.

    Raises:
        ConfigError: a value is out of its range.
    """
    if not 0 < risk < largest_loss <= 1:
        raise ConfigError(
            f"the risk is {risk}, the largest loss {largest_loss}; expected 0 < risk < largest "
            "loss <= 1."
        )
    passed = None
    found = first = np.minimum(losses(sequence[0]), largest_loss)
    for thresholds in sequence:
        tested = np.minimum(losses(thresholds), largest_loss)
        if p_value(tested, risk, confidence, largest_loss) > 1 - confidence:
            return RiskChoice(risk, passed, first if passed is None else found, thresholds)
        passed, found = thresholds, tested
    return RiskChoice(risk, passed, found, None)


class ImageLosses:
    """The losses of a split's images with any thresholds; each are computed once.

    Args:
        engine: that serves, along the ladder of its card.
        source: the split.
        limit: only so many images, evenly spaced.
        tick: called after each image.

    Raises:
        ConfigError: the model finds joints, or its ladder has too many paths.
    """

    def __init__(
        self,
        engine: LadderEngine,
        source: SampleSource,
        limit: int | None = None,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        card = engine.card
        if not card.task.has_classes:
            raise ConfigError(
                f"{card.name} finds joints; a promise is about the classes of pixels, so it needs "
                "a model for segmentation."
            )
        self._engine = engine
        self._source = source
        self._limit = limit
        self._tick = tick
        self._paths = paths_of(card)
        self._whole: dict[tuple[str, Rungs], bytes] = {}
        self._known: dict[Thresholds, NDArray[np.float64]] = {}

    @property
    def criterion(self) -> str:
        """Name of the criterion that the thresholds are of."""
        return self._engine.card.task.first_criterion

    def __call__(self, thresholds: Thresholds) -> NDArray[np.float64]:
        """(n,) losses, 0 to 1, see the module."""
        if thresholds not in self._known:
            masking = Masking(self.criterion, thresholds)
            criteria = replace(self._engine.card, masking=masking).rung_criteria()
            losses = []
            for sample in evenly(self._source, self._limit):
                losses.append(self._loss(sample, criteria))
                self._tick()
            self._known[thresholds] = np.array(losses)
        return self._known[thresholds]

    def _loss(self, sample: Sample, criteria: Sequence[Criterion | None]) -> float:
        worst = 0.0
        answers: dict[Rungs, _Answer] = {}
        for path in self._paths:
            whole = self._without_masks(sample, path)
            climbing = self._engine.begin(sample.image)
            for made, rung in enumerate(path[:-1], 1):
                result = climbing.advance(criteria[rung - 1], rung=rung)
                answer = answers.get(path[:made])
                if answer is None:
                    answer = answers[path[:made]] = self._answer(result)
                worst = max(worst, answer.differing(whole))
        return worst

    def _answer(self, result: RungResult) -> _Answer:
        settled = ~result.active[result.inside]
        return _Answer(self._labels(result), result.at_source(settled.view(np.uint8)) > 0)

    def _labels(self, result: RungResult) -> NDArray[np.uint8]:
        decoded = self._engine.decode(result)
        if not isinstance(decoded, SegmentationMap):
            raise ConfigError("a promise needs a map of classes; the model finds joints.")
        return decoded.labels

    def _without_masks(self, sample: Sample, path: Rungs) -> NDArray[np.uint8]:
        """The classes after a whole path without masks, (H, W), kept for the next thresholds."""
        key, size = (sample.name, path), sample.image.shape[:2]
        if key not in self._whole:
            climbing = self._engine.begin(sample.image)
            for rung in path:
                result = climbing.advance(rung=rung)
            self._whole[key] = zlib.compress(self._labels(result).tobytes(), 1)
        return np.frombuffer(zlib.decompress(self._whole[key]), np.uint8).reshape(size)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a rung says about an image, (H, W) each."""

    labels: NDArray[np.uint8]
    settled: NDArray[np.bool_]

    def differing(self, whole: NDArray[np.uint8]) -> float:
        """Share of the settled pixels with another class than the whole network's."""
        count = np.count_nonzero(self.settled)
        return np.count_nonzero(self.settled & (self.labels != whole)) / count if count else 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found on some images for some risks.

    Attributes:
        card: of the model, as it was run.
        data: name of the data set and split.
        precision: what convolutions computed in.
        criterion: that the thresholds are of.
        confidence: of each promise by itself, between 0 and 1.
        largest_loss: that one image counts.
        choices: by rising risk.
    """

    card: Card
    data: str
    precision: str
    criterion: str
    confidence: float
    largest_loss: float
    choices: tuple[RiskChoice, ...]

    def certificates(self) -> tuple[Certificate, ...]:
        """Of the risks for which thresholds passed."""
        card = self.card
        return tuple(
            Certificate(
                risk=choice.risk,
                confidence=self.confidence,
                criterion=self.criterion,
                thresholds=choice.thresholds,
                images=len(choice.losses),
                measured=round(float(choice.losses.mean()), 6),
                largest_loss=self.largest_loss,
                dataset=self.data,
                precision=self.precision,
                sides=card.sides,
                joining=card.joining,
                paths=paths_of(card),
                sha256=card.sha256,
            )
            for choice in self.choices
            if choice.thresholds is not None
        )

    def record(self, folder: Path) -> Card:
        """Write the certificates into the manifest, in place of all that it had."""
        card = replace(self.card, certificates=self.certificates())
        write_card(folder, card)
        return card

    def table(self) -> Table:
        """The choices for a terminal, one row a risk."""
        images = len(self.choices[0].losses)
        table = Table(
            title=f"{self.card.name} on {self.data}: {images} images, {100 * self.confidence:g} % "
            f"confidence, {self.precision}",
            caption=f"an image counts {self.largest_loss:g} at most; frames of one clip are not "
            "independent, so that of a video fewer images count than there are",
        )
        for column in ("risk", f"{self.criterion} after each exit", "measured", "at most"):
            table.add_column(column, justify="right")
        table.add_column("")
        for choice in self.choices:
            bound = upper_bound(choice.losses, self.confidence, self.largest_loss)
            table.add_row(
                f"{choice.risk:g}",
                "no masks" if choice.thresholds is None else _numbers(choice.thresholds),
                f"{choice.losses.mean():.4f}",
                f"{bound:.4f}",
                self._remark(choice),
            )
        return table

    def _remark(self, choice: RiskChoice) -> str:
        if choice.failed is None:
            return "all passed"
        if choice.thresholds is not None:
            return f"{_numbers(choice.failed)} failed"
        needed = images_needed(choice.losses, choice.risk, self.confidence, self.largest_loss)
        if needed is None:
            return f"{_numbers(choice.failed)} failed: the mean is not below the risk"
        return f"{_numbers(choice.failed)} failed: {needed} images like these are needed"


def calibrate(
    weights: Path,
    data: Path,
    split: str,
    risks: Sequence[float],
    confidence: float,
    *,
    largest_loss: float = 1.0,
    precision: Precision | str = Precision.AUTO,
    device: str = "cpu",
    engine: str | None = None,
    limit: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Calibration:
    """Choose thresholds for each risk.

    Args:
        weights: one of our files, with its manifest beside it.
        data: a data set's folder; which one is recognised by its layout.
        split: images that the model was not trained on, drawn like those that it will see.
        risks: see `choose`.
        confidence: of each promise by itself.
        largest_loss: see `choose`.
        precision: what convolutions compute in; by default what is served.
        device: of the torch engine.
        engine: what computes, see `engines.select`; None asks the environment, as the server does.
        limit: only so many images, evenly spaced.
        tick: called after each image that was run with some thresholds.

    Raises:
        CheckpointError: the weights cannot be used.
        DataError: the data set is not laid out as expected.
        ConfigError: weights, data and numbers do not fit together.
    """
    checkpoint = load_checkpoint(weights)
    source, data_name = open_data(data, split)
    check_fit(checkpoint.card.config, source)
    made = make_engine(checkpoint, engine, precision=precision, device=device)
    losses = ImageLosses(made, source, limit, tick)
    sequence = tuple(staircase(CANDIDATES, checkpoint.card.config.num_exits - 1))
    return Calibration(
        card=made.card,
        data=data_name,
        precision=made.dtype,
        criterion=losses.criterion,
        confidence=confidence,
        largest_loss=largest_loss,
        choices=tuple(
            choose(losses, sequence, risk=risk, confidence=confidence, largest_loss=largest_loss)
            for risk in sorted(set(risks))
        ),
    )


def _numbers(thresholds: Thresholds) -> str:
    return ", ".join(f"{t:g}" for t in thresholds)
