"""Normalisation statistics measured anew for the weights that are kept.

Running statistics trail the weights by a hundred steps, and an average of weights has statistics
of its own: neither are those of the weights that are shipped. Some batches without learning give
the right ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from anytime_model.anytime import AnytimeNetwork
from anytime_model.confidence import Criterion
from anytime_model.data.loading import Batch, normalise


@torch.no_grad()
def refresh(
    network: AnytimeNetwork,
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
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    network.train()
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            network(normalise(batch.images.to(device)), criteria)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
