"""The anytime HRNet: both tasks, all depths, gradients, compilation and lower precision."""

import pytest
import torch

from anytime_model.confidence import (
    HeatmapMaximum,
    MaximumProbability,
    RandomShare,
)
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from model.factories import random_image, tiny_network


@pytest.mark.parametrize("exits", ["original", "redesigned"])
def test_pose_masks_positions_that_are_unlikely_to_be_a_joint(exits):
    network = tiny_network(task="pose", exits=exits)
    states = network(random_image(), HeatmapMaximum(0.5))
    best = states[0].logits.amax(dim=1, keepdim=True)
    assert torch.equal(states[0].active, best >= 0.5)
    assert states[-1].logits.shape == (1, 5, 16, 24)


@pytest.mark.parametrize("depths", [(3, 2, 1), (1, 1, 1), (3, 3, 3)])
def test_all_depths_of_the_ablation_put_out_maps_of_one_size(depths):
    states = tiny_network(depths=depths)(random_image(), MaximumProbability(0.6))
    assert {s.logits.shape for s in states} == {(1, 5, 16, 24)}


def test_bf16_autocast_stays_close_to_float32():
    network, image = tiny_network(), random_image()
    with torch.autocast("cpu", torch.bfloat16):
        half = network(image, MaximumProbability(0.6))
    full = network(image)
    error = (half[0].logits.float() - full[0].logits).abs().mean()
    assert error < 0.1 * full[0].logits.std()
    assert half[-1].logits.isfinite().all()


def test_gradients_reach_every_lambda_and_the_stem():
    network = AnytimeNetwork(NetworkConfig("tiny", 5)).train().requires_grad_(True)
    states = network(random_image(batch=2), RandomShare(0.5))
    sum(s.logits.square().mean() for s in states).backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert missing == []
    lambdas = [p.grad for n, p in network.named_parameters() if n.endswith(".lam")]
    assert sum(g.abs() > 0 for g in lambdas) > len(lambdas) / 2


@pytest.mark.slow
def test_every_stage_and_exit_can_be_captured_whole_by_torch_compile():
    network, image, criterion = tiny_network(), random_image(), MaximumProbability(0.6)
    plain = network(image, criterion)
    for part in (*network.stages, *network.exits):
        part.compile(backend="eager", fullgraph=True)
    for one, other in zip(network(image, criterion), plain, strict=True):
        assert torch.equal(one.logits, other.logits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    network, image = tiny_network(), random_image()
    cpu = network(image)[-1].logits
    gpu = network.cuda()(image.cuda())[-1].logits.cpu()
    torch.testing.assert_close(cpu, gpu, rtol=1e-3, atol=1e-3)
