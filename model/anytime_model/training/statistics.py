"""Normalisation statistics measured anew for the weights that are kept.

Running statistics trail the weights by a hundred steps, and an average of weights has statistics
of its own: neither are those of the weights that are shipped. Some batches without learning give
the right ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from anytime_model.confidence import Criterion
from anytime_model.data.loading import Batch, normalise
from anytime_model.networks.base import Network


def refresh(
    network: Network,
    batches: Iterable[Batch],
    criteria: Sequence[Criterion | None] | None = None,
    *,
    half: bool = False,
) -> None:
    """Replace all running statistics by means over batches; ends in evaluation mode.

    Args:
        network: whose weights stay as they are.
        batches: as in training, augmented.
        criteria: masks, as in training: interpolated features have other statistics.
        half: bfloat16 autocast.
    """
    device = next(network.parameters()).device
    update_bn((batch.images for batch in batches), _AsInTraining(network, criteria, half), device)
    network.eval()


class _AsInTraining(nn.Module):
    """A network as a function of images (B, 3, H, W) uint8 alone."""

    def __init__(
        self,
        network: Network,
        criteria: Sequence[Criterion | None] | None,
        half: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self._criteria = criteria
        self._half = half

    def forward(self, images: Tensor) -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._half):
            self.network(normalise(images), self._criteria)
