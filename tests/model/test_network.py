"""The network's laws: what stepping, masking, batching and padding may and may not change."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.anytime import AnytimeNetwork
from anytime_model.confidence import (
    Entropy,
    HeatmapMaximum,
    MaximumProbability,
    RandomShare,
    TopShare,
)
from anytime_model.config import NetworkConfig
from anytime_model.errors import ConfigError, FinishedError, ImageError
from model.model_fakes import random_image, tiny_network

thresholds = st.floats(0.3, 0.99)
confident = st.one_of(
    thresholds.map(MaximumProbability),
    st.floats(0.05, 1.5).map(Entropy),
    st.floats(0, 1).map(TopShare),
)
criteria = st.one_of(confident, st.floats(0, 1).map(RandomShare))
seeds = st.integers(0, 3)
quick = settings(max_examples=15, deadline=None)


def stepped(network, image, criterion=None):
    state = network.begin(image)
    states = []
    while not state.done:
        state = network.advance(state, criterion)
        states.append(state)
    return states


@quick
@given(seeds, criteria)
def test_stepping_gives_bit_for_bit_what_forward_gives(seed, criterion):
    network, image = tiny_network(seed=seed), random_image(seed=seed)
    for one, other in zip(
        stepped(network, image, criterion), network(image, criterion), strict=True
    ):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.active, other.active)


@quick
@given(seeds, criteria)
def test_masks_only_shrink(seed, criterion):
    states = tiny_network(seed=seed)(random_image(seed=seed), criterion)
    for earlier, later in pairwise(states):
        assert not (later.active & ~earlier.active).any()


@quick
@given(seeds, criteria)
def test_a_carried_over_pixel_never_changes(seed, criterion):
    states = tiny_network(seed=seed)(random_image(seed=seed), criterion)
    for earlier, later in pairwise(states):
        settled = ~earlier.active.expand_as(earlier.logits)
        assert torch.equal(earlier.logits[settled], later.logits[settled])


@quick
@given(seeds, st.floats(1.0001, 10))
def test_a_threshold_above_one_equals_the_unmasked_network(seed, threshold):
    network, image = tiny_network(seed=seed), random_image(seed=seed)
    for masked, plain in zip(
        network(image, MaximumProbability(threshold)), network(image), strict=True
    ):
        assert torch.equal(masked.logits, plain.logits)


@quick
@given(seeds, confident)
def test_batches_equal_single_images(seed, criterion):
    network, image = tiny_network(seed=seed), random_image(batch=3, seed=seed)
    together = network(image, criterion)
    for i in range(3):
        alone = network(image[i : i + 1], criterion)
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one.logits[0], many.logits[i], rtol=1e-4, atol=1e-4)


def test_images_of_a_batch_have_different_masks():
    states = tiny_network()(random_image(batch=2), MaximumProbability(0.6))
    assert not torch.equal(states[0].active[0], states[0].active[1])


def test_masking_really_changes_something():
    network, image = tiny_network(), random_image()
    masked, plain = network(image, MaximumProbability(0.6)), network(image)
    assert 0 < masked[0].active_share < 1
    assert not torch.equal(masked[-1].logits, plain[-1].logits)


@quick
@given(st.integers(1, 70), st.integers(1, 70))
def test_a_map_has_the_size_of_the_image(height, width):
    network = tiny_network()
    state = network.advance(network.begin(torch.rand(1, 3, height, width)))
    assert network.upsample(state).shape == (1, 5, height, width)


def test_padding_repeats_the_border_and_is_cropped_off():
    network = tiny_network()
    image = random_image(height=33, width=40)
    by_hand = torch.nn.functional.pad(image, (0, 24, 0, 31), mode="replicate")
    ours = network(image)[-1]
    assert torch.equal(
        network.upsample(ours), network.upsample(network(by_hand)[-1])[..., :33, :40]
    )


def test_an_abandoned_stage_leaves_the_state_as_it_was():
    class StoppedError(Exception):
        pass

    calls = []

    def stop_at_the_third():
        calls.append(1)
        if len(calls) == 3:
            raise StoppedError

    network = tiny_network()
    state = network.advance(network.begin(random_image()))
    features = [x.clone() for x in state.features]
    with pytest.raises(StoppedError):
        network.advance(state, pause=stop_at_the_third)
    assert all(torch.equal(a, b) for a, b in zip(features, state.features, strict=True))
    assert torch.equal(network.advance(state).logits, network(random_image())[1].logits)


def test_every_stage_can_be_stopped_between_its_modules():
    network = tiny_network()
    state = network.begin(random_image())
    while not state.done:
        pauses = []
        state = network.advance(state, pause=lambda seen=pauses: seen.append(1))
        assert len(pauses) >= 3


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


def test_one_criterion_an_exit_is_possible():
    states = tiny_network()(random_image(), [None, None, TopShare(0.5)])
    assert states[0].active is None
    assert states[1].active is None
    assert states[2].active_share == 0.5


def test_a_later_exit_without_criterion_keeps_the_mask():
    states = tiny_network()(random_image(), [TopShare(0.5), None, None])
    assert torch.equal(states[0].active, states[2].active)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (torch.rand(3, 32, 32), r"shape \(3, 32, 32\)"),
        (torch.rand(1, 4, 32, 32), r"shape \(1, 4, 32, 32\)"),
        (torch.rand(1, 3, 0, 32), "none 0"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
    ],
)
def test_a_bad_image_is_refused_with_what_was_found(image, complaint):
    with pytest.raises(ImageError, match=complaint):
        tiny_network().begin(image)


def test_there_is_nothing_after_the_last_exit():
    network = tiny_network()
    with pytest.raises(FinishedError, match="begin again"):
        network.advance(network(random_image())[-1])


def test_there_is_no_map_before_the_first_exit():
    network = tiny_network()
    with pytest.raises(FinishedError, match="advance first"):
        network.upsample(network.begin(random_image()))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "w19"}, "'w19'.*'w18'"),
        ({"outputs": 0}, "outputs is 0"),
        ({"task": "depth"}, "'depth'"),
        ({"exits": "none"}, "'none'"),
        ({"depths": (3, 2)}, "three whole numbers"),
        ({"depths": (4, 2, 1)}, "from 1 to 3"),
        ({"head_width": -1}, "head_width is -1"),
    ],
)
def test_an_impossible_network_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        NetworkConfig(**{"preset": "tiny", "outputs": 3} | changes)


@pytest.mark.parametrize("build", [MaximumProbability, Entropy, HeatmapMaximum])
def test_a_threshold_that_is_no_number_is_refused(build):
    with pytest.raises(ConfigError, match="finite"):
        build(float("nan"))


def test_two_criteria_for_four_exits_are_refused():
    with pytest.raises(ConfigError, match="2 criteria"):
        tiny_network()(random_image(), [None, None])


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
