"""Criteria judge each image by itself, and refuse thresholds that are no numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.confidence import (
    Entropy,
    HeatmapMaximum,
    Margin,
    MaximumProbability,
)
from anytime_model.errors import ConfigError
from model.strategies import confident

seeds = st.integers(0, 3)


quick = settings(max_examples=15, deadline=None)


@quick
@given(seeds, confident)
def test_a_criterion_judges_each_image_of_a_batch_by_itself(seed, criterion):
    logits = torch.randn((3, 5, 16, 24), generator=torch.Generator().manual_seed(seed))
    together = criterion(logits)
    for i in range(3):
        assert torch.equal(criterion(logits[i : i + 1])[0], together[i])


@pytest.mark.parametrize("build", [MaximumProbability, Entropy, Margin, HeatmapMaximum])
def test_a_threshold_that_is_no_number_is_refused(build):
    with pytest.raises(ConfigError, match="finite"):
        build(float("nan"))
