"""The report of an evaluation, as values that print and serialise."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from rich.table import Table

from anytime_model.errors import ConfigError
from anytime_model.flops import GIGA
from anytime_model.tasks import Metric


@dataclass(frozen=True, slots=True)
class ExitScores:
    """One exit, over all images.

    Attributes:
        exit: number of the exit, from 1.
        score: mIoU, or PCKh@0.5; 0 to 1.
        by_output: the score of each class or joint; None where it does not occur.
        accuracy: share of pixels right, or PCK@0.2 of the torso; 0 to 1.
        calibration_error: ECE of the confidence, 0 to 1; None for pose, whose confidence is no
            probability.
        masked: share of positions that need no more work after this exit, 0 to 1.
        masked_right: share of the masked pixels that are right at this exit; None where nothing is
            masked, and for pose.
        macs: mean multiply-adds up to this exit, in the paper's convention.
        macs_executed: the same for an engine without waste (`flops.ConvCost.executed`).
        lost: share of the pixels that were right at the exit before and are wrong at this one; None
            at the first, and for pose.
        failure_ranking: chance that a right pixel is more confident than a wrong one (the area
            under the ROC curve), 0 to 1; None for pose.
    """

    exit: int
    score: float
    by_output: dict[str, float | None]
    accuracy: float
    calibration_error: float | None
    masked: float
    masked_right: float | None
    macs: float
    macs_executed: float
    lost: float | None = None
    failure_ranking: float | None = None


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """A whole evaluation.

    Attributes:
        model: name of the model.
        data: name of the data set and split.
        metric: what `score` is.
        images: how many.
        scale: factor that images were enlarged by.
        flip: whether the mirrored image's maps were averaged in.
        criterion: of the masks; None where nothing was masked.
        thresholds: of the criterion after each exit but the last.
        maskable_saved: share of the multiply-adds of maskable convolutions that the masks saved
            over all stages, paper's convention, 0 to 1.
        exits: one report each.
    """

    model: str
    data: str
    metric: str
    images: int
    scale: float
    flip: bool
    criterion: str | None
    thresholds: tuple[float, ...] | None
    maskable_saved: float
    exits: tuple[ExitScores, ...]

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> EvaluationReport:
        """A report that `to_json` wrote.

        Raises:
            ConfigError: the text is no such report.
        """
        try:
            content = json.loads(text)
            exits = tuple(ExitScores(**e) for e in content.pop("exits"))
            thresholds = content.pop("thresholds")
            return cls(exits=exits, thresholds=tuple(thresholds) if thresholds else None, **content)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ConfigError(
                f"the text is no saved report ({error}); write one with evaluate --save."
            ) from error

    def table(self) -> Table:
        """The report for a terminal, one row an exit."""
        masks = "no masks"
        if self.criterion and self.thresholds:
            values = ", ".join(f"{t:g}" for t in self.thresholds)
            masks = f"{self.criterion} at {values}, {100 * self.maskable_saved:.1f} % saved"
        title = f"{self.model} on {self.data}: {self.images} images, scale {self.scale:g}, {masks}"
        second = _metric(self.metric).second_label
        caption = (
            "ECE: expected calibration error; AUROC: chance that a right pixel is more confident "
            "than a wrong one; lost: right at the exit before, wrong now"
        )
        table = Table(title=title, caption=caption)
        for column in (
            "exit",
            self.metric,
            second,
            "ECE",
            "AUROC",
            "lost",
            "masked",
            "of these right",
            "GMACs (paper)",
            "GMACs (executed)",
        ):
            table.add_column(column, justify="right")
        for e in self.exits:
            table.add_row(
                str(e.exit),
                _percent(e.score),
                _percent(e.accuracy),
                _percent(e.calibration_error),
                _percent(e.failure_ranking),
                _percent(e.lost),
                _percent(e.masked),
                _percent(e.masked_right),
                f"{e.macs / GIGA:.2f}",
                f"{e.macs_executed / GIGA:.2f}",
            )
        return table

    def by_output_table(self) -> Table:
        """The score of each class or joint, one row each, one column an exit."""
        table = Table(title=f"{self.metric} by {_metric(self.metric).output_label}")
        table.add_column("")
        for e in self.exits:
            table.add_column(f"exit {e.exit}", justify="right")
        for name in self.exits[0].by_output:
            table.add_row(name, *(_percent(e.by_output[name]) for e in self.exits))
        return table


def number_or_none(value: float) -> float | None:
    """None for NaN, which JSON cannot hold."""
    return None if math.isnan(value) else value


def optional(value: float | None) -> float | None:
    """None for None and NaN."""
    return None if value is None else number_or_none(value)


def _metric(label: str) -> Metric:
    for metric in Metric:
        if metric.label == label:
            return metric
    raise ConfigError(
        f"the metric is {label!r}; expected {' or '.join(repr(m.label) for m in Metric)}."
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
