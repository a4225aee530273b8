"""Criteria of confidence: where a map is settled, so that the network computes no further there.

A criterion looks at one exit's aggregated map and says which positions stay *active*. It is a
value with its threshold inside, and an argument of a run. The paper compares them in Figure 5
(right).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from anytime_model.errors import ConfigError


class Criterion(Protocol):
    """Says which positions of a map still need work."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Active positions, (B, 1, h, w) boolean, of a map (B, K, h, w)."""
        ...


class FeatureCriterion(ABC):
    """A criterion that looks at the features that an exit reads, in place of its map."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Refuse: where only maps are at hand, it cannot decide.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{type(self).__name__} decides by features; only a map {tuple(logits.shape)} is "
            "at hand here. Use the torch or the native engine at a single size."
        )

    @abstractmethod
    def of_features(self, features: Sequence[Tensor]) -> Tensor:
        """Active positions, (B, 1, h, w) boolean.

        Args:
            features: (B, C_i, h_i, w_i), finest first. They count where the exit's map was active
                and next to there; elsewhere they may be anything.

        Raises:
            ConfigError: they are not the features that it was made for.
        """


def unsettled(criterion: Criterion, logits: Tensor, features: Sequence[Tensor]) -> Tensor:
    """What a criterion leaves active, (B, 1, h, w) boolean.

    Args:
        criterion: which.
        logits: (B, K, h, w), the map.
        features: that its exit has read; only a `FeatureCriterion` looks at them.
    """
    if isinstance(criterion, FeatureCriterion):
        return criterion.of_features(features)
    return criterion(logits)


def maximum_probability(logits: Tensor) -> Tensor:
    """Largest softmax probability, (B, 1, h, w) in [1/K, 1], of class logits (B, K, h, w)."""
    return logits.float().softmax(dim=1).amax(dim=1, keepdim=True)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, (B, 1, h, w) in [0, ln K], of class logits (B, K, h, w)."""
    log_p = logits.float().log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1, keepdim=True)


def margin(logits: Tensor) -> Tensor:
    """Largest softmax probability less the second, (B, 1, h, w), of logits (B, K >= 2, h, w)."""
    largest = logits.float().softmax(dim=1).topk(2, dim=1).values
    return largest[:, :1] - largest[:, 1:]


def heatmap_maximum(heatmaps: Tensor) -> Tensor:
    """Largest value over the joints, (B, 1, h, w), of heat-maps (B, J, h, w)."""
    return heatmaps.float().amax(dim=1, keepdim=True)


@dataclass(frozen=True, slots=True)
class MaximumProbability:
    """Active where the largest probability is at most `threshold` (the paper's choice, 0.998).

    A threshold of 1 or more masks nothing.
    """

    threshold: float

    def __post_init__(self) -> None:
        _finite("threshold", self.threshold)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        return maximum_probability(logits) <= self.threshold


@dataclass(frozen=True, slots=True)
class Entropy:
    """Active where the entropy of the class probabilities is at least `threshold` nats."""

    threshold: float

    def __post_init__(self) -> None:
        _finite("threshold", self.threshold)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        return entropy(logits) >= self.threshold


@dataclass(frozen=True, slots=True)
class Margin:
    """Active where the two largest probabilities lie at most `threshold` apart."""

    threshold: float

    def __post_init__(self) -> None:
        _finite("threshold", self.threshold)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        return margin(logits) <= self.threshold


@dataclass(frozen=True, slots=True)
class HeatmapMaximum:
    """For pose: active where some joint's heat-map reaches `threshold` (section 3.2, 0.002).

    A position below it is unlikely to be any joint, so it is masked.
    """

    threshold: float

    def __post_init__(self) -> None:
        _finite("threshold", self.threshold)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        return heatmap_maximum(logits) >= self.threshold


@dataclass(frozen=True, slots=True)
class TopShare:
    """Masks, in each image, the given share of positions whose largest probability is highest."""

    share: float

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        return _all_but_highest(maximum_probability(logits), self.share)


@dataclass(frozen=True, slots=True)
class RandomShare:
    """Masks a random share of positions in each image: the control that confidence has to beat.

    The same seed masks the same positions of maps of one shape, whatever they hold.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Criterion`."""
        batch, _, height, width = logits.shape
        generator = torch.Generator().manual_seed(self.seed)
        scores = torch.rand((batch, 1, height, width), generator=generator).to(logits.device)
        return _all_but_highest(scores, self.share)


def _all_but_highest(scores: Tensor, share: float) -> Tensor:
    flat = scores.flatten(1)
    count = round(share * flat.shape[1])
    highest = flat.topk(count, dim=1).indices
    return torch.ones_like(flat, dtype=torch.bool).scatter(1, highest, value=False).view_as(scores)


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ConfigError(
            f"{name} is {value}; expected a finite number. Use 1.1 to mask nothing by probability."
        )


def _share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"share is {value}; expected a share of positions from 0 to 1.")
