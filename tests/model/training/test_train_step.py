"""The optimisers of a training step."""

from __future__ import annotations

import pytest

from anytime_model.training.recipe import Adam
from anytime_model.training.train_step import build_optimisers
from model.factories import tiny_lite


@pytest.mark.parametrize("stages", [1.0, 0.25])
def test_pretrained_stages_may_learn_more_slowly_and_every_parameter_learns(stages: float) -> None:
    network = tiny_lite()
    settings = Adam(0.1, weight_decay=0.01, decoupled=True, stages=stages)
    (optimiser,) = build_optimisers(network, settings)
    peaks = {}
    decayed = set()
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            peaks[id(parameter)] = group["peak"]
            if group["weight_decay"]:
                decayed.add(id(parameter))
    for name, parameter in network.named_parameters():
        expected = 0.1 * (stages if name.startswith("stages.") else 1)
        assert peaks[id(parameter)] == pytest.approx(expected)
        assert (id(parameter) in decayed) == (parameter.ndim > 1)
