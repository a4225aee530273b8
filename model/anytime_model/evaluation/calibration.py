"""Calibration of the confidence: a temperature for each exit, folded into its last convolution.

Guo et al., ICML 2017: dividing logits by one number fitted on held-out data makes the largest
probability match the share of right answers, and changes no answer. Since each exit ends in a 1x1
convolution, its weights and bias take the division in, and nothing is left to do at run time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.data.loading import collate
from anytime_model.data.sample import IGNORE, SampleSource
from anytime_model.errors import ConfigError
from anytime_model.evaluation.measure import MeasureSettings, run_image
from anytime_model.networks.base import Network

SAMPLES_PER_IMAGE = 4000
_RANGE = (0.2, 5.0)
_STEPS = 40


@torch.no_grad()
def temperatures(
    network: Network,
    source: SampleSource,
    settings: MeasureSettings,
    tick: Callable[[], object] = lambda: None,
) -> tuple[float, ...]:
    """The temperature of each exit that makes held-out labels most likely.

    Args:
        network: whose maps are class logits; is put into evaluation mode.
        source: held-out data, not trained on.
        settings: how the network will be run (the scale matters; masks are left out).
        tick: called after each image.
    """
    network.eval()
    random = torch.Generator().manual_seed(0)
    logits: list[list[Tensor]] = [[] for _ in range(network.config.num_exits)]
    labels: list[Tensor] = []
    for i in range(len(source)):
        batch = collate([source[i]])
        if batch.labels is None:
            raise ConfigError("temperatures need class labels; this data set has none.")
        _, maps = run_image(network, batch.images, settings)
        known = (batch.labels.flatten() != IGNORE).nonzero().squeeze(1)
        picked = known[torch.randperm(len(known), generator=random)[:SAMPLES_PER_IMAGE]]
        labels.append(batch.labels.flatten()[picked].long())
        for kept, full in zip(logits, maps, strict=True):
            kept.append(full[0].flatten(1)[:, picked].T.contiguous())
        tick()
    truth = torch.cat(labels)
    return tuple(best_temperature(torch.cat(kept), truth) for kept in logits)


def fold_temperatures(network: Network, values: tuple[float, ...]) -> None:
    """Divide each exit's logits by its temperature, for good."""
    for head, value in zip(network.exits, values, strict=True):
        predict = head.predict
        if not isinstance(predict, nn.Conv2d) or predict.bias is None:
            raise ConfigError("an exit does not end in a convolution with a bias.")
        predict.weight.data /= value
        predict.bias.data /= value


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, 0.2 to 5, that makes labels most likely.

    Golden-section search over its logarithm: the loss is convex in 1/T, so it has one minimum.

    Args:
        logits: (P, K).
        labels: (P,) int64.
    """
    golden = (5**0.5 - 1) / 2

    def loss(log_t: Tensor) -> float:
        return float(F.cross_entropy(logits / log_t.exp(), labels))

    low, high = (torch.tensor(value).log() for value in _RANGE)
    for _ in range(_STEPS):
        a, b = high - golden * (high - low), low + golden * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float(((low + high) / 2).exp())
