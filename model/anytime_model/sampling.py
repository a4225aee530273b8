"""Feature-based stochastic sampling: where to compute next, predicted from features.

The paper's other way to choose masks (section 3, "Baselines", 3; Xie et al., ECCV 2020): a 3x3
convolution on the features that an exit reads predicts for each position whether it is computed
until the next exit. Training makes that choice soft and random (Gumbel-softmax, which for two
choices is a sigmoid of the score with logistic noise); inference makes it hard. Positions that are
not computed are interpolated as with confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anytime_model.confidence import FeatureCriterion
from anytime_model.errors import ConfigError
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.hrnet.exits import concatenate

INITIAL_SCORE = 2.0
"""Of every position before training: 88 % are computed."""


class MaskPredictor(nn.Module):
    """A 3x3 convolution for each exit but the last, from its features to scores.

    Args:
        config: of the network whose features it reads.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(sum(widths), 1, 3, padding=1) for widths in config.size.stage_widths[:-1]
        )
        for conv in self.scorers:
            nn.init.zeros_(conv.weight)
            if conv.bias is not None:
                nn.init.constant_(conv.bias, INITIAL_SCORE)

    @property
    def scorers(self) -> tuple[nn.Conv2d, ...]:
        """The convolutions, exit 1's first."""
        return tuple(conv for conv in self.convs if isinstance(conv, nn.Conv2d))

    def soft(self, features: Sequence[Tensor], exit_: int, temperature: float) -> Tensor:
        """A random soft mask for training, (B, 1, h, w) in 0 to 1, differentiable.

        Args:
            features: that the exit reads, finest first.
            exit_: its number.
            temperature: of the softmax; the lower, the nearer to 0 and 1.
        """
        score = scores(self.scorers[exit_ - 1], features)
        return torch.sigmoid((score + _logistic(torch.rand_like(score))) / temperature)

    def criteria(
        self, thresholds: Sequence[float], seed: int | None = None
    ) -> tuple[StochasticSampling, ...]:
        """The criterion of each exit but the last.

        Args:
            thresholds: of each, see `StochasticSampling`.
            seed: see there; exits draw different noise.
        """
        return tuple(
            StochasticSampling(scorer, threshold, None if seed is None else 10 * seed + k)
            for k, (scorer, threshold) in enumerate(zip(self.scorers, thresholds, strict=True))
        )


@dataclass(frozen=True, slots=True)
class StochasticSampling(FeatureCriterion):
    """Active where the predicted score, with noise if there is a seed, exceeds `threshold`.

    The same seed adds the same noise to every image of one size.

    Attributes:
        scorer: (B, C, h, w) features to (B, 1, h, w) scores, the log-odds of computing a position.
        threshold: 0 is the predictor's own choice; a higher one samples fewer positions.
        seed: of the logistic noise, or None for none.
    """

    scorer: nn.Conv2d
    threshold: float = 0.0
    seed: int | None = None

    def of_features(self, features: Sequence[Tensor]) -> Tensor:
        """See `FeatureCriterion`."""
        with torch.no_grad():
            score = scores(self.scorer, features)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed)
            noise = _logistic(torch.rand(score.shape[-2:], generator=generator))
            score = score + noise.to(score.device)
        return score > self.threshold


def scores(scorer: nn.Conv2d, features: Sequence[Tensor]) -> Tensor:
    """Scores (B, 1, h, w) float32 at the size of the finest features.

    Raises:
        ConfigError: features of another network.
    """
    found = sum(x.shape[1] for x in features)
    if found != scorer.in_channels:
        raise ConfigError(
            f"the mask predictor reads {scorer.in_channels} channels, the exit {found}; expected "
            "the predictor of this network and exit."
        )
    made: Tensor = scorer(concatenate([x.float() for x in features]))
    return made


def predictor_macs(config: NetworkConfig, exit_: int, positions: float) -> float:
    """Multiply-adds of the prediction after an exit at so many positions of its map."""
    return 9.0 * sum(config.size.stage_widths[exit_ - 1]) * positions


def _logistic(uniform: Tensor) -> Tensor:
    """Logistic noise, which is the difference of two Gumbel variables, of a uniform variable."""
    return torch.logit(uniform, eps=1e-6)
