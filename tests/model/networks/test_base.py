"""The laws of a network: what stepping, masking, batching, padding and a prior may change."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.confidence import (
    MaximumProbability,
    RandomShare,
    TopShare,
)
from anytime_model.errors import ConfigError, FinishedError, InputError
from anytime_model.networks.base import Network, Prior, build_network
from model.factories import random_image, tiny_network
from model.strategies import confident

criteria = st.one_of(confident, st.floats(0, 1).map(RandomShare))


seeds = st.integers(0, 3)


network_of = cache(lambda seed: tiny_network(seed=seed))
quick = settings(max_examples=15, deadline=None)


class ByImage:
    """Masks the random share of positions that a seed draws for each image of a batch by itself."""

    def __init__(self, share):
        self.share = share
        self.images = [0, 1, 2]

    def __call__(self, logits):
        one = logits[:1]
        masks = [RandomShare(self.share, seed=i)(one) for i in self.images[: len(logits)]]
        return torch.cat(masks)

    def alone(self, i):
        """The same for image i of the batch."""
        other = ByImage(self.share)
        other.images = [i]
        return other


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
    network, image = network_of(seed), random_image(seed=seed)
    for one, other in zip(
        stepped(network, image, criterion), network(image, criterion), strict=True
    ):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.active, other.active)


@quick
@given(seeds, criteria)
def test_masks_only_shrink(seed, criterion):
    states = network_of(seed)(random_image(seed=seed), criterion)
    for earlier, later in pairwise(states):
        assert not (later.active & ~earlier.active).any()


@quick
@given(seeds, criteria)
def test_a_carried_over_pixel_never_changes(seed, criterion):
    states = network_of(seed)(random_image(seed=seed), criterion)
    for earlier, later in pairwise(states):
        settled = ~earlier.active.expand_as(earlier.logits)
        assert torch.equal(earlier.logits[settled], later.logits[settled])


@quick
@given(seeds, st.floats(1.0001, 10))
def test_a_threshold_above_one_equals_the_unmasked_network(seed, threshold):
    network, image = network_of(seed), random_image(seed=seed)
    for masked, plain in zip(
        network(image, MaximumProbability(threshold)), network(image), strict=True
    ):
        assert torch.equal(masked.logits, plain.logits)


@quick
@given(seeds, st.floats(0, 1))
@pytest.mark.slow
def test_batches_equal_single_images(seed, share):
    """With masks that do not depend on the map, since rounding may tip a pixel at its threshold."""
    network, image = network_of(seed), random_image(batch=3, seed=seed)
    criterion = ByImage(share)
    together = network(image, criterion)
    for i in range(3):
        alone = network(image[i : i + 1], criterion.alone(i))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one.logits[0], many.logits[i], rtol=1e-4, atol=1e-4)
            assert torch.equal(one.active[0], many.active[i])


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
    with pytest.raises(InputError, match=complaint):
        tiny_network().begin(image)


def test_there_is_nothing_after_the_last_exit():
    network = tiny_network()
    with pytest.raises(FinishedError, match="begin again"):
        network.advance(network(random_image())[-1])


def test_there_is_no_map_before_the_first_exit():
    network = tiny_network()
    with pytest.raises(FinishedError, match="advance first"):
        network.upsample(network.begin(random_image()))


def test_two_criteria_for_four_exits_are_refused():
    with pytest.raises(ConfigError, match=r"2 criteria.*4 exits"):
        tiny_network()(random_image(), [None, None])


def a_prior(batch=1, share=0.6, seed=5):
    """A map for `random_image`, and a share of it that is not settled."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((batch, 5, 16, 24), generator=generator)
    return Prior(logits, torch.rand((batch, 1, 16, 24), generator=generator) < share)


@quick
@given(seeds, criteria, st.floats(0, 1))
def test_settled_positions_of_a_prior_keep_its_map_through_all_exits(seed, criterion, share):
    network, image, prior = network_of(seed), random_image(seed=seed), a_prior(share=share)
    state = network.begin(image, prior)
    settled = ~prior.active.expand_as(prior.logits)
    while not state.done:
        before, state = state, network.advance(state, criterion)
        assert torch.equal(state.logits[settled], prior.logits[settled])
        assert not (state.active & ~before.active).any()


def test_the_first_stage_is_computed_everywhere_whatever_the_prior():
    network, image, prior = tiny_network(), random_image(), a_prior()
    state = network.advance(network.begin(image, prior))
    plain = network.advance(network.begin(image))
    assert torch.equal(state.logits, torch.where(prior.active, plain.logits, prior.logits))
    assert all(torch.equal(a, b) for a, b in zip(state.features, plain.features, strict=True))


def test_a_prior_that_settles_nothing_changes_nothing():
    network, image = tiny_network(), random_image(batch=2)
    state = network.begin(image, a_prior(batch=2, share=1.1))
    for plain in network(image):
        state = network.advance(state)
        torch.testing.assert_close(state.logits, plain.logits, rtol=0, atol=0)


def test_a_prior_masks_like_a_criterion_that_settled_the_same_after_exit_1():
    network, image = tiny_network(), random_image()
    states = network(image, [MaximumProbability(0.6), None, None])
    state = network.begin(image, Prior(states[0].logits, states[0].active))
    for expected in states:
        state = network.advance(state)
        assert torch.equal(state.logits, expected.logits)
        assert torch.equal(state.active, expected.active)


@pytest.mark.parametrize(
    ("logits", "active", "complaint"),
    [
        (torch.zeros(1, 5, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool), "padded size"),
        (torch.zeros(1, 4, 16, 24), torch.zeros(1, 1, 16, 24, dtype=torch.bool), "padded size"),
        (torch.zeros(1, 5, 16, 24), torch.zeros(1, 1, 16, 24), "booleans"),
    ],
)
def test_a_prior_of_another_image_is_refused(logits, active, complaint):
    with pytest.raises(InputError, match=complaint):
        tiny_network().begin(random_image(), Prior(logits, active))


@dataclass(frozen=True)
class TwoExits:
    """The configuration of a toy family: maps of 3 outputs at an eighth of the resolution."""

    family: str = "toy"
    task: str = "segmentation"
    outputs: int = 3
    num_exits: int = 2
    may_skip_exits: bool = False
    stride: int = 16
    map_stride: int = 8

    def entries(self):
        return {}


class Toy(Network):
    """Two stages that pool and add, to show that nothing here is HRNet's alone."""

    def __init__(self):
        super().__init__(TwoExits())

    def masks(self, active):
        return {tuple(active.shape[-2:]): active}

    def run_to(self, state, exit_, pause):
        pause()
        features = state.features if state.exit else (F.avg_pool2d(state.features[0], 8),)
        return features, features[0] + state.exit


def test_another_family_needs_nothing_but_stages_masks_and_its_numbers():
    network, image = Toy(), random_image(height=33, width=40)
    first, last = network(image, MaximumProbability(0.5))
    assert last.done
    assert not first.done
    assert first.logits.shape == (1, 3, 6, 6)
    assert network.upsample(last).shape == (1, 3, 33, 40)
    settled = ~first.active.expand_as(first.logits)
    assert torch.equal(first.logits[settled], last.logits[settled])
    with pytest.raises(ConfigError, match=r"3 criteria.*2 exits"):
        network(image, [None] * 3)


def test_an_unknown_family_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"'toy'.*'hrnet'.*'lite'"):
        build_network(TwoExits())
