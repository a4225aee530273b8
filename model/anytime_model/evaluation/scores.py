"""Accumulators of accuracy: fed image by image, read once at the end.

They see maps and truths. They refuse to know networks, files and thresholds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from anytime_model.data.sample import IGNORE


class SegmentationScore:
    """Counts of (true class, found class) pairs, and what can be told from them.

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
