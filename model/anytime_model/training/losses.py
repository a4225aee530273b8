"""The losses of a training: one term for each exit, which equation 1 weighs and sums.

With adaptivity on, the maps that arrive here are the aggregated ones (equation 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anytime_model.data.loading import Batch
from anytime_model.data.sample import IGNORE, SampleSource
from anytime_model.errors import ConfigError
from anytime_model.training.lovasz import lovasz_softmax

SHARPNESS = 10.0
"""A heat-map's values times this are the logits of the localising term."""

TEMPERATURE = 2.0
"""That soft targets and what is compared with them are flattened by."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross-entropy of class logits.

    Attributes:
        strides: for each exit, the spacing of the pixels that it is compared at, px: 1 compares at
            every pixel with enlarged maps, the map's stride at the maps' own resolution. Empty
            means 1 for all.
        balance: whether classes are weighted by sqrt(median frequency / frequency).
        overlap: weight of a second term that stands for what is scored, 1 - mIoU
            (`lovasz.lovasz_softmax`), or 0. It is taken at the maps' own resolution.
    """

    strides: tuple[int, ...] = ()
    balance: bool = False
    overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class HeatmapError:
    """Squared error of heat-maps against Gaussians around the visible joints.

    Attributes:
        sigma: of the Gaussian, in cells of the map.
        localisation: weight of a second term, the divergence between target and map, each made
            a distribution over the cells by a softmax of ten times its values. Like squared error
            it is least where the map equals the target, but it moves away from all-zero maps, near
            which squared error alone stays for long. The paper, which starts from ImageNet, has 0.
    """

    sigma: float = 2.0
    localisation: float = 0.0


Loss = CrossEntropy | HeatmapError


MeanOverProcesses = Callable[[Tensor], Tensor]


def _alone(value: Tensor) -> Tensor:
    return value


def per_exit(
    loss: Loss,
    maps: Sequence[Tensor],
    batch: Batch,
    step: int,
    *,
    class_weights: Tensor | None = None,
    mean_over_processes: MeanOverProcesses = _alone,
) -> Tensor:
    """Each exit's loss, (exits,): the terms that equation 1 weighs and sums.

    Args:
        loss: which.
        maps: of every exit, (B, K, h, w); the images' sides are multiples of the maps'.
        batch: the truth.
        step: see `cross_entropy`.
        class_weights: see `cross_entropy`.
        mean_over_processes: see `cross_entropy`; alone by default.

    Raises:
        ConfigError: the batch has no truth for this loss.
    """
    map_stride = batch.images.shape[-1] // maps[0].shape[-1]
    match loss:
        case CrossEntropy():
            if batch.labels is None:
                raise ConfigError("the recipe's loss needs class labels; the data set has none.")
            terms = [
                cross_entropy(
                    logits,
                    batch.labels,
                    stride,
                    step,
                    weights=class_weights,
                    mean_over_processes=mean_over_processes,
                )
                for logits, stride in zip(maps, loss.strides or [1] * len(maps), strict=True)
            ]
            if loss.overlap:
                target = _on_grid(batch.labels, map_stride, step)
                overlaps = [lovasz_softmax(logits.float(), target, IGNORE) for logits in maps]
                terms = [t + loss.overlap * o for t, o in zip(terms, overlaps, strict=True)]
        case HeatmapError():
            if batch.joints is None:
                raise ConfigError("the recipe's loss needs joints; the data set has none.")
            size = (maps[0].shape[-2], maps[0].shape[-1])
            target = gaussians(batch.joints, size, loss.sigma, map_stride)
            visible = batch.joints[..., 2]
            terms = [heatmap_error(m, target, visible, loss.localisation) for m in maps]
    return torch.stack(terms)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    stride: int,
    step: int,
    *,
    weights: Tensor | None = None,
    mean_over_processes: MeanOverProcesses = _alone,
) -> Tensor:
    """Weighted mean over the labelled pixels on a grid of the given spacing.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W) uint8, 255 ignored; H and W are multiples of h and w.
        stride: 1 or an even number of px.
        step: picks the phase of the grid. A cell of an even number of pixels has no middle pixel:
            even steps take the one after the middle, odd steps the one before.
        weights: of the classes, (K,), or None.
        mean_over_processes: of the total weight, which the sum is divided by.
    """
    logits = logits.float()
    if stride != labels.shape[-1] // logits.shape[-1]:
        size = (labels.shape[-2] // stride, labels.shape[-1] // stride)
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    target = _on_grid(labels, stride, step)
    error = F.cross_entropy(logits, target, weights, ignore_index=IGNORE, reduction="sum")
    known = target[target != IGNORE]
    weight = known.new_tensor(len(known)).float() if weights is None else weights[known].sum()
    return error / mean_over_processes(weight).clamp(min=1e-6)


def soft_targets(maps: Sequence[Tensor], teacher: Tensor, labels: Tensor, step: int) -> Tensor:
    """Each exit's divergence from a teacher's map, where the teacher is right, (exits,).

    Args:
        maps: of every exit, class logits (B, K, h, w).
        teacher: class logits (B, K, h, w), without gradient.
        labels: (B, H, W) uint8; H and W are multiples of h and w.
        step: see `cross_entropy`.

    Returns:
        Means over the cells where the teacher's class is the label's, of the Kullback-Leibler
        divergence at temperature 2, times 4 as in Hinton et al. (1503.02531).
    """
    target = _on_grid(labels, labels.shape[-1] // teacher.shape[-1], step)
    right = teacher.argmax(1) == target
    wanted = (teacher.float() / TEMPERATURE).log_softmax(1)
    terms = []
    for logits in maps:
        found = (logits.float() / TEMPERATURE).log_softmax(1)
        divergence = (wanted.exp() * (wanted - found)).sum(1)
        terms.append((divergence * right).sum() / right.sum().clamp(min=1))
    return TEMPERATURE**2 * torch.stack(terms)


def _on_grid(labels: Tensor, stride: int, step: int) -> Tensor:
    """Every so many labels, (B, H/stride, W/stride) int64, in the step's phase."""
    first = stride // 2 - (step % 2 if stride > 1 else 0)
    return labels[:, first::stride, first::stride].long()


def gaussians(joints: Tensor, size: tuple[int, int], sigma: float, map_stride: int) -> Tensor:
    """Target heat-maps, (B, J, h, w) with peak 1, of joints (B, J, 3) in px of the image.

    With a stride of 4, a map's cell i covers the pixels 4 i to 4 i + 3, so its centre lies at
    4 i + 1.5.
    """
    centre = (joints[..., :2].float() - (map_stride - 1) / 2) / map_stride
    x = torch.arange(size[1], device=joints.device) - centre[..., 0, None]
    y = torch.arange(size[0], device=joints.device) - centre[..., 1, None]
    scale = -1 / (2 * sigma**2)
    return torch.exp(scale * y.square()).unsqueeze(-1) * torch.exp(scale * x.square()).unsqueeze(-2)


def heatmap_error(maps: Tensor, target: Tensor, visible: Tensor, localisation: float) -> Tensor:
    """Mean squared error over all cells, and the localising term of `HeatmapError`.

    Args:
        maps: (B, J, h, w).
        target: (B, J, h, w), from `gaussians`.
        visible: (B, J), 1 or 0; joints that are not visible count as without error.
        localisation: weight of the localising term.
    """
    maps = maps.float()
    error = ((maps - target).square() * visible[..., None, None]).mean()
    if not localisation:
        return error
    wanted = (SHARPNESS * target).flatten(2).log_softmax(2)
    found = (SHARPNESS * maps).flatten(2).log_softmax(2)
    divergence = (wanted.exp() * (wanted - found)).sum(2)
    return error + localisation * (divergence * visible).mean()


def balanced_weights(source: SampleSource) -> Tensor:
    """sqrt(median frequency / frequency) for each class of a split, (K,) float32.

    A class's frequency is its share of the pixels of those images that show it.
    """
    classes = len(source.outputs)
    pixels = torch.zeros(classes, dtype=torch.float64)
    shown = torch.zeros(classes, dtype=torch.float64)
    for index in range(len(source)):
        labels = source[index].labels
        if labels is None:
            raise ConfigError("class weights need class labels; the data set has none.")
        counts = torch.from_numpy(labels).flatten().bincount(minlength=256)[:classes]
        pixels += counts
        shown += (counts > 0) * int(counts.sum())
    frequency = pixels / shown.clamp(min=1)
    present = frequency > 0
    median = frequency[present].median()
    weights = torch.where(present, (median / frequency.clamp(min=1e-12)).sqrt(), 1.0)
    return weights.float()
