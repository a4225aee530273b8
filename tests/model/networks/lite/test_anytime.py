"""The anytime lite network: stepping, masks, priors, padding, counts, and its place on disk."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.checkpoint import load_model, read_manifest, save_checkpoint
from anytime_model.confidence import MaximumProbability, RandomShare
from anytime_model.flops import conv_costs, per_exit, stage_macs
from anytime_model.networks.base import Prior
from anytime_model.networks.lite.anytime import LiteNetwork
from anytime_model.networks.lite.config import LiteConfig
from model.factories import lite_checkpoint, random_image, tiny_lite
from model.strategies import confident

quick = settings(max_examples=8, deadline=None)
network_of = cache(tiny_lite)
criteria = st.one_of(confident, st.floats(0, 1).map(RandomShare))


@quick
@given(criteria)
def test_stepping_gives_bit_for_bit_what_forward_gives(criterion):
    network, image = network_of(), random_image()
    state = network.begin(image)
    for other in network(image, criterion):
        state = network.advance(state, criterion)
        assert torch.equal(state.logits, other.logits)
        assert torch.equal(state.active, other.active)
    assert state.done


@quick
@given(criteria)
def test_masks_shrink_and_settled_positions_keep_their_maps(criterion):
    for earlier, later in pairwise(network_of()(random_image(), criterion)):
        settled = ~earlier.active.expand_as(earlier.logits)
        assert not (later.active & ~earlier.active).any()
        assert torch.equal(earlier.logits[settled], later.logits[settled])


def test_active_positions_have_the_maps_of_the_unmasked_network():
    network, image = network_of(), random_image()
    masked, plain = network(image, MaximumProbability(0.6)), network(image)
    assert 0 < masked[0].active_share < 1
    for before, one, other in zip(masked, masked[1:], plain[1:], strict=False):
        active = before.active.expand_as(one.logits)
        assert torch.equal(one.logits[active], other.logits[active])


def test_a_prior_stays_where_it_is_settled():
    network = network_of()
    logits = torch.randn(1, 5, 16, 24)
    prior = Prior(logits, torch.rand(1, 1, 16, 24) < 0.5)
    settled = ~prior.active.expand_as(logits)
    state = network.begin(random_image(), prior)
    while not state.done:
        state = network.advance(state, MaximumProbability(0.6))
        assert torch.equal(state.logits[settled], logits[settled])


@pytest.mark.parametrize("size", [(1, 1), (33, 40), (31, 97)])
def test_a_map_has_the_size_of_the_image_and_padding_repeats_its_border(size):
    network, image = network_of(), random_image(height=size[0], width=size[1])
    padding = (0, -size[1] % 32, 0, -size[0] % 32)
    padded = torch.nn.functional.pad(image, padding, mode="replicate")
    for one, other in zip(network(image), network(padded), strict=True):
        full = network.upsample(one)
        assert full.shape == (1, 5, *size)
        assert torch.equal(full, network.upsample(other)[..., : size[0], : size[1]])


def test_every_stage_can_be_stopped_between_its_blocks():
    state = network_of().begin(random_image())
    while not state.done:
        pauses = []
        state = network_of().advance(state, pause=lambda seen=pauses: seen.append(1))
        assert len(pauses) >= 2


def test_gradients_reach_every_parameter():
    network = LiteNetwork(LiteConfig("tiny", 5)).train()
    sum(s.logits.square().mean() for s in network(random_image(batch=2))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_counts_are_those_of_mobilenets_arithmetic_and_masks_change_none():
    costs = conv_costs(LiteConfig("tiny", 5), 64, 96)
    by_name = {cost.name: cost for cost in costs}
    depthwise = by_name["stages.0.blocks.1.depthwise.conv"]
    assert depthwise.per_position == 9 * 4 * 6
    assert depthwise.size == (16, 24)
    assert by_name["stages.3.blocks.0.project.conv"].size == (2, 3)
    assert by_name["exits.0.predict"].size == (16, 24)
    network = network_of()
    mask = network.masks(torch.zeros(1, 1, 16, 24, dtype=torch.bool))
    for stage, (before, after) in enumerate(pairwise((0, *per_exit(costs))), start=1):
        assert stage_macs(costs, stage, mask) == after - before > 0


def test_the_encoder_of_lite0_has_the_tables_size():
    """2.96 million parameters: 4.65 of EfficientNet-Lite0 without its head of 1280 channels."""
    with torch.device("meta"):
        network = LiteNetwork(LiteConfig("lite0", 11))
    assert sum(p.numel() for p in network.stages.parameters()) == 2958848


def test_weights_and_card_survive_the_disk(tmp_path):
    checkpoint = lite_checkpoint()
    save_checkpoint(checkpoint.network, checkpoint.card, tmp_path)
    card = read_manifest(tmp_path)[checkpoint.card.name]
    assert card.config == checkpoint.card.config
    loaded = load_model(card, tmp_path).network
    for one, other in zip(loaded(random_image()), network_of()(random_image()), strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=0.05, atol=0.05)
