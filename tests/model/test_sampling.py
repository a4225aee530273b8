"""Feature-based sampling: seeded masks from features, alike in every engine, and trainable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anytime_model.confidence import FeatureCriterion
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError
from anytime_model.flops import conv_costs
from anytime_model.kernels.reference import interpolate_inactive
from anytime_model.networks.mdeq import MdeqConfig, MdeqNetwork
from anytime_model.sampling import MaskPredictor, predictor_macs
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import lite_checkpoint, random_image, smooth_pixels, tiny_checkpoint

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")


def predictor_for(checkpoint, seed=0):
    """One of random weights, that keeps about half of all positions."""
    torch.manual_seed(seed)
    predictor = MaskPredictor(checkpoint.network.config).requires_grad_(False)
    for k, conv in enumerate(predictor.scorers):
        torch.nn.init.normal_(conv.weight, std=0.1)
        features = checkpoint.network(random_image())[k].features
        conv.bias.fill_(0.0)
        enlarged = torch.cat([f.mean(dim=(2, 3)) for f in features], dim=1)
        conv.bias.copy_(-(conv.weight.sum(dim=(2, 3)) @ enlarged[0]))
    return predictor


@built
@pytest.mark.parametrize("isa", native_isas())
@pytest.mark.parametrize("seed", [None, 3])
def test_native_and_torch_sample_the_same_positions(isa, seed):
    checkpoint = tiny_checkpoint()
    criteria = predictor_for(checkpoint).criteria([0.0, 0.3, 0.3], seed)
    image = smooth_pixels(100, 150)
    expected = run(TorchEngine(checkpoint), image, criteria)
    shares = [result.active_share for result in expected[:3]]
    assert 0 < shares[2] < shares[1] < shares[0] < 1
    assert_agrees(run(native(checkpoint, isa), image, criteria), expected)


@built
@pytest.mark.parametrize("isa", native_isas("bf16"))
def test_features_in_bfloat16_sample_nearly_the_same_positions(isa):
    checkpoint = tiny_checkpoint()
    criteria = predictor_for(checkpoint).criteria([0.0] * 3)
    image = smooth_pixels(100, 150)
    expected = run(TorchEngine(checkpoint), image, criteria)
    ours = run(native(checkpoint, isa), image, criteria)
    assert np.mean(ours[0].active == expected[0].active) > 0.95


def test_the_same_seed_samples_the_same_positions_and_another_seed_others():
    checkpoint = tiny_checkpoint()
    predictor = predictor_for(checkpoint)
    features = checkpoint.network(random_image())[0].features

    def mask(seed):
        return predictor.criteria([0.0] * 3, seed)[0].of_features(features)

    assert torch.equal(mask(1), mask(1))
    assert not torch.equal(mask(1), mask(2))


def test_a_higher_threshold_samples_a_part_of_the_positions():
    checkpoint = tiny_checkpoint()
    predictor = predictor_for(checkpoint)
    features = checkpoint.network(random_image())[0].features
    more, fewer = (predictor.criteria([t] * 3, 1)[0].of_features(features) for t in (0.0, 1.0))
    assert 0 < fewer.sum() < more.sum()
    assert not (fewer & ~more).any()


def test_features_of_another_network_are_refused():
    criterion = predictor_for(tiny_checkpoint()).criteria([0.0] * 3)[0]
    network = MdeqNetwork(MdeqConfig("tiny", outputs=5)).eval()
    with pytest.raises(ConfigError, match="of this network"):
        network(random_image(), [criterion] * 4)


def test_where_only_a_map_is_at_hand_sampling_is_refused():
    criterion = predictor_for(tiny_checkpoint()).criteria([0.0] * 3)[0]
    assert isinstance(criterion, FeatureCriterion)
    with pytest.raises(ConfigError, match="features"):
        criterion(torch.zeros(1, 5, 16, 24))


@built
def test_a_family_whose_features_are_not_kept_is_refused():
    criterion = predictor_for(tiny_checkpoint()).criteria([0.0] * 3)[0]
    run_ = native(lite_checkpoint()).begin(smooth_pixels(64, 96))
    with pytest.raises(ConfigError, match="shows no features"):
        run_.advance(criterion)


def test_a_soft_mask_of_zeros_and_ones_is_the_hard_one():
    y = torch.randn(2, 4, 12, 9, generator=torch.Generator().manual_seed(0))
    active = torch.rand(2, 1, 12, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    lam = torch.tensor(0.8)
    hard = interpolate_inactive(y, active, lam)
    torch.testing.assert_close(interpolate_inactive(y, active.float(), lam), hard)


def test_the_predictor_learns_from_the_maps_behind_its_soft_masks():
    checkpoint = tiny_checkpoint()
    network = checkpoint.network
    predictor = predictor_for(checkpoint).requires_grad_(True)
    state = network.advance(network.begin(random_image()))
    soft = predictor.soft(state.features, 1, 1.0)
    assert 0 < soft.min() < soft.max() < 1
    _, logits = network.run_to(replace(state, active=soft), 2, lambda: None)
    logits.square().sum().backward()
    assert predictor.scorers[0].weight.grad.abs().max() > 0


def test_a_prediction_costs_what_its_convolution_costs():
    config = tiny_checkpoint().network.config
    predictor = MaskPredictor(config)
    positions = next(c for c in conv_costs(config, 64, 96) if c.stage == 2).positions
    per_position = predictor.scorers[0].weight.numel()
    assert predictor_macs(config, 1, positions) == per_position * positions
