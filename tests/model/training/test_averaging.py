"""The average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from anytime_model.training.averaging import WeightAverage


def test_an_average_follows_the_weights_and_keeps_integers() -> None:
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(3.0)
    network.num_batches_tracked.fill_(7)
    average.update(network, step=100)
    assert average.tensors["weight"].tolist() == [2.0, 2.0]
    assert average.tensors["num_batches_tracked"] == 7
