"""Scores of maps against labels or joints: fed image by image, read once at the end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from anytime_model.confidence import maximum_probability
from anytime_model.data.loading import Batch
from anytime_model.data.sample import IGNORE, SampleSource
from anytime_model.errors import ConfigError
from anytime_model.results import Decoded, Keypoints, SegmentationMap
from anytime_model.tasks import TASKS, Metric, decode_keypoints


class SegmentationScore:
    """Counts of (true class, found class) pairs, and the metrics that follow from them.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Take in predicted and true classes of the same shape; label 255 is ignored."""
        self.counts += multiclass_confusion_matrix(
            predicted.long(), labels.long(), len(self.counts), ignore_index=IGNORE
        ).cpu()

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, (K,) in 0 to 1; NaN where it occurs nowhere."""
        hits = self.counts.diagonal().double()
        return hits / (self.counts.sum(0) + self.counts.sum(1) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return float(self.iou.nanmean())

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right."""
        return float(self.counts.diagonal().sum() / self.counts.sum())


class PoseScore:
    """How many joints lie near enough to where they should, in units of the head or the torso.

    Args:
        joints: how many.
        share: what counts as near, in those units: 0.5 of the head for PCKh@0.5.
    """

    def __init__(self, joints: int, share: float) -> None:
        self.share = share
        self.right = torch.zeros(joints, dtype=torch.int64)
        self.total = torch.zeros(joints, dtype=torch.int64)

    def add(self, found: Tensor, truth: Tensor, unit_px: Tensor) -> None:
        """Take in joints found and true.

        Args:
            found: (B, J, 2 or more) x, y in px.
            truth: (B, J, 3) x, y in px and visibility.
            unit_px: (B,) length of the unit in px; NaN leaves the image out.
        """
        known = (truth[..., 2] > 0) & unit_px.isfinite()[:, None]
        distance = (found[..., :2] - truth[..., :2]).norm(dim=-1)
        near = distance <= self.share * unit_px[:, None]
        self.right += (near & known).sum(0).cpu()
        self.total += known.sum(0).cpu()

    @property
    def per_joint(self) -> Tensor:
        """Share of each joint's instances that are near enough, (J,); NaN where none is known."""
        return self.right.double() / self.total

    @property
    def mean(self) -> float:
        """Share over all joints together."""
        return float(self.right.sum() / self.total.sum())


class Reliability:
    """Whether confidence means something: the expected calibration error over equal bins.

    Guo et al., ICML 2017: in each bin the distance between mean confidence and accuracy, weighted
    by the bin's share of pixels. (torchmetrics keeps every pixel of a data set until the end; this
    keeps three numbers a bin.)

    Args:
        bins: of confidence between 0 and 1.
    """

    def __init__(self, bins: int = 15) -> None:
        self.count = torch.zeros(bins, dtype=torch.float64)
        self.confidence = torch.zeros(bins, dtype=torch.float64)
        self.right = torch.zeros(bins, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Take in confidences in 0 to 1 and whether each was right, of the same shape."""
        bins = len(self.count)
        flat = confidence.flatten().double().cpu()
        index = (flat * bins).long().clamp(0, bins - 1)
        self.count += index.bincount(minlength=bins)
        self.confidence += torch.bincount(index, flat, minlength=bins)
        self.right += torch.bincount(index, right.flatten().double().cpu(), minlength=bins)

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1."""
        gap = (self.confidence - self.right).abs().sum()
        return float(gap / self.count.sum())


class FailureRanking:
    """Whether confidence ranks right pixels before wrong ones: the area under the ROC curve.

    The chance that a right pixel is more confident than a wrong one, ties counted half. Most pixels
    of a good map lie close to 1, so bins are even in the logarithm of what is missing to 1.
    (torchmetrics keeps every pixel, or compares each with every threshold.)

    Args:
        bins: of the logarithm, down to 2^-24.
    """

    def __init__(self, bins: int = 1000) -> None:
        self.right = torch.zeros(bins, dtype=torch.float64)
        self.wrong = torch.zeros(bins, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Take in confidences in 0 to 1 and whether each was right, of the same shape."""
        bins = len(self.right)
        missing = (1 - confidence.flatten().double().cpu()).clamp(2.0**-24, 1)
        index = (-missing.log2() / 24 * bins).long().clamp(0, bins - 1)
        is_right = right.flatten().cpu()
        self.right += index[is_right].bincount(minlength=bins)
        self.wrong += index[~is_right].bincount(minlength=bins)

    @property
    def area(self) -> float:
        """0 to 1, 0.5 without any order; NaN where all pixels are right, or wrong."""
        below = self.wrong.cumsum(0) - self.wrong / 2
        return float((self.right * below).sum() / (self.right.sum() * self.wrong.sum()))


class Scorer(Protocol):
    """Everything that is scored of one exit over a split."""

    @property
    def score(self) -> float:
        """The metric's main number, 0 to 1."""
        ...

    @property
    def second(self) -> float:
        """The metric's second number, 0 to 1."""
        ...

    @property
    def per_output(self) -> Tensor:
        """The main number of each class or joint, (K,); NaN where it does not occur."""
        ...

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, 0 to 1; None where the confidence is no probability."""
        ...

    @property
    def failure_ranking(self) -> float | None:
        """Area under the ROC curve of the confidence, see `FailureRanking`; None for joints."""
        ...

    @property
    def settled_right(self) -> float | None:
        """Share of settled pixels that are right; None where nothing is settled or classified."""
        ...

    def add(self, scored: Tensor, batch: Batch, *, map_stride: int, scale: float) -> Tensor | None:
        """Take in maps as `Task.crop` returns them.

        Args:
            scored: the maps of a batch.
            batch: the truth.
            map_stride: px of the network's image for each cell of a map.
            scale: factor that the images were enlarged by before the network.

        Returns:
            Which pixels are right, (B, H, W); None for joints.

        Raises:
            ConfigError: the batch has no truth of this kind.
        """
        ...

    def add_decoded(self, decoded: Decoded, confidence: Tensor, batch: Batch) -> Tensor | None:
        """Take in what an engine has decoded.

        Args:
            decoded: at the size of the image.
            confidence: (1, H, W), at the size of the image.
            batch: the truth, of this image alone.

        Returns:
            Which pixels are right, (1, H, W); None for joints.

        Raises:
            ConfigError: the batch has no truth of this kind, or something else was decoded.
        """
        ...

    def add_confidence(self, scored: Tensor, batch: Batch, settled: Tensor | None) -> None:
        """Take in how sure the maps are.

        Args:
            scored: the maps of a batch.
            batch: the truth.
            settled: (B, H, W) boolean, pixels that need no more work, or None for none.
        """
        ...


class ClassScorer:
    """Mean IoU, pixel accuracy, calibration, and how many settled pixels are right.

    Args:
        source: the split.
    """

    def __init__(self, source: SampleSource) -> None:
        self._counts = SegmentationScore(len(source.outputs))
        self._reliability = Reliability()
        self._ranking = FailureRanking()
        self._settled = 0
        self._settled_right = 0

    @property
    def score(self) -> float:
        """Mean IoU."""
        return self._counts.mean_iou

    @property
    def second(self) -> float:
        """Pixel accuracy."""
        return self._counts.accuracy

    @property
    def per_output(self) -> Tensor:
        """IoU of each class."""
        return self._counts.iou

    @property
    def calibration_error(self) -> float:
        """See `Scorer`."""
        return self._reliability.error

    @property
    def failure_ranking(self) -> float:
        """See `Scorer`."""
        return self._ranking.area

    @property
    def settled_right(self) -> float | None:
        """See `Scorer`."""
        return self._settled_right / self._settled if self._settled else None

    def add(self, scored: Tensor, batch: Batch, *, map_stride: int, scale: float) -> Tensor:  # noqa: ARG002
        """See `Scorer.add`; `scored` has the labels' size."""
        return self._add(scored.argmax(1), batch)

    def add_decoded(self, decoded: Decoded, confidence: Tensor, batch: Batch) -> Tensor:
        """See `Scorer.add_decoded`."""
        if not isinstance(decoded, SegmentationMap):
            raise ConfigError("mIoU needs a map of classes; the model finds joints.")
        right = self._add(torch.from_numpy(decoded.labels)[None], batch)
        self._rank(confidence, right, _labels(batch) != IGNORE)
        return right

    def _add(self, predicted: Tensor, batch: Batch) -> Tensor:
        labels = _labels(batch)
        self._counts.add(predicted, labels)
        return predicted == labels

    def _rank(self, confidence: Tensor, right: Tensor, known: Tensor) -> None:
        self._reliability.add(confidence[known], right[known])
        self._ranking.add(confidence[known], right[known])

    def add_confidence(self, scored: Tensor, batch: Batch, settled: Tensor | None) -> None:
        """See `Scorer.add_confidence`."""
        labels = _labels(batch)
        known, right = labels != IGNORE, scored.argmax(1) == labels
        confidence = maximum_probability(scored).squeeze(1)
        self._rank(confidence, right, known)
        if settled is not None:
            self._settled += int((settled & known).sum())
            self._settled_right += int((right & settled & known).sum())


class JointScorer:
    """PCKh@0.5, and PCK@0.2 of the torso.

    Args:
        source: the split.

    Raises:
        ConfigError: the data set has no skeleton.
    """

    def __init__(self, source: SampleSource) -> None:
        if source.skeleton is None:
            raise ConfigError("PCK of the torso needs a skeleton; this data set has none.")
        self._ends = list(source.skeleton.torso)
        self._head = PoseScore(len(source.outputs), 0.5)
        self._torso = PoseScore(len(source.outputs), 0.2)

    @property
    def score(self) -> float:
        """PCKh@0.5."""
        return self._head.mean

    @property
    def second(self) -> float:
        """PCK@0.2 of the torso."""
        return self._torso.mean

    @property
    def per_output(self) -> Tensor:
        """PCKh@0.5 of each joint."""
        return self._head.per_joint

    @property
    def calibration_error(self) -> None:
        """None: a heat-map's value is no probability."""
        return

    @property
    def failure_ranking(self) -> None:
        """None: pixels have no classes."""
        return

    @property
    def settled_right(self) -> None:
        """None: pixels have no classes."""
        return

    def add(self, scored: Tensor, batch: Batch, *, map_stride: int, scale: float) -> None:
        """See `Scorer.add`; `scored` holds the cells inside the images."""
        self._add(joints_at(scored, map_stride, scale), batch)

    def add_decoded(self, decoded: Decoded, confidence: Tensor, batch: Batch) -> None:  # noqa: ARG002
        """See `Scorer.add_decoded`."""
        if not isinstance(decoded, Keypoints):
            raise ConfigError("PCKh needs joints; the model makes a map of classes.")
        self._add(torch.from_numpy(decoded.points)[None], batch)

    def _add(self, found: Tensor, batch: Batch) -> None:
        if batch.joints is None or batch.head_px is None:
            raise ConfigError("PCKh needs joints; this data set has none.")
        ends = batch.joints[:, self._ends]
        torso_px = (ends[:, 0, :2] - ends[:, 1, :2]).norm(dim=-1)
        torso_px = torso_px.where((ends[..., 2] > 0).all(1), float("nan"))
        self._head.add(found, batch.joints, batch.head_px)
        self._torso.add(found, batch.joints, torso_px)

    def add_confidence(self, scored: Tensor, batch: Batch, settled: Tensor | None) -> None:
        """See `Scorer.add_confidence`: there is nothing to take in."""


_SCORERS: Mapping[Metric, type[ClassScorer | JointScorer]] = MappingProxyType(
    {Metric.MEAN_IOU: ClassScorer, Metric.PCKH: JointScorer}
)


def scorer(source: SampleSource) -> Scorer:
    """An empty scorer for the metric of a split's task."""
    return _SCORERS[TASKS[source.task].metric](source)


class Lost:
    """The share of pixels that were right and have become wrong, from one map to the next."""

    def __init__(self) -> None:
        self._known = 0
        self._lost = 0

    def add(self, before: Tensor | None, now: Tensor | None, batch: Batch) -> None:
        """Take in which pixels of a batch were right and are, (B, H, W); nothing without either."""
        if before is not None and now is not None:
            self._known += int((_labels(batch) != IGNORE).sum())
            self._lost += int((before & ~now).sum())

    @property
    def share(self) -> float | None:
        """Of all pixels with a label, 0 to 1; None where there was no map before."""
        return self._lost / self._known if self._known else None


def joints_at(heatmaps: Tensor, map_stride: int, scale: float) -> Tensor:
    """Joints (B, J, 3) in px of the image as it was before it was enlarged by `scale`."""
    height, width = (map_stride * n for n in heatmaps.shape[-2:])
    found = decode_keypoints(heatmaps, (height, width), map_stride)
    found[..., :2] = (found[..., :2] + 0.5) / scale - 0.5
    return found


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise ConfigError("mIoU needs class labels; this data set has none.")
    return batch.labels
