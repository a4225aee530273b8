"""An exponential moving average of the weights, which scores better than the last step's weights.

torch's AveragedModel replaces the average at the first step instead of weighing it in, averages
integer buffers, and stores under other names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a network's parameters and normalisation statistics.

    Args:
        network: what is averaged; the average starts as a copy.
        decay: share of the average kept at each step; smaller in the first steps, so that the
            average leaves the random start behind.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.tensors = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after the 0-based step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        state = network.state_dict()
        mine, theirs = [], []
        for name, average in self.tensors.items():
            if average.is_floating_point():
                mine.append(average)
                theirs.append(state[name].detach())
            else:
                average.copy_(state[name])
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a stored average."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
