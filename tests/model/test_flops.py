"""The counts against the paper's tables, and against masks counted by hand."""

from functools import partial

import pytest
import torch

from anytime_model.errors import ConfigError
from anytime_model.flops import GIGA, ConvCost, conv_costs, one_exit, per_exit, stage_macs
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.hrnet.masking import Masks
from model.factories import random_image, tiny_network

CITYSCAPES = (1024, 2048)


def counted(config, size, *shares, **options):
    return [m / GIGA for m in per_exit(conv_costs(config, *size), *shares, **options)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "size", "paper"),
    [
        (NetworkConfig("w48", 19, exits="original"), CITYSCAPES, (48.4, 113.4, 388.9, 722.2)),
        (NetworkConfig("w48", 19), CITYSCAPES, (41.9, 105.6, 368.0, 701.3)),
        (NetworkConfig("w18", 19), CITYSCAPES, (23.7, 34.7, 49.9, 73.2)),
        (NetworkConfig("w48", 59, exits="original"), (480, 480), (5.4, 12.6, 43.1, 80.1)),
        (NetworkConfig("w48", 59, head_width=64), (480, 480), (4.5, 11.4, 40.2, 77.2)),
    ],
)
def test_the_tables_of_the_paper_come_out(config, size, paper):
    # The paper cuts its decimals off in places, so a tenth is allowed.
    assert counted(config, size) == pytest.approx(paper, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("exits", "last"), [("original", 9.51), ("redesigned", 9.55)])
def test_the_pose_table_of_the_paper_comes_out(exits, last):
    config = NetworkConfig("w32", 16, task="pose", exits=exits)
    assert counted(config, (256, 256))[-1] == pytest.approx(last, abs=0.005)
    assert one_exit(conv_costs(config, 256, 256)) / GIGA == pytest.approx(9.49, abs=0.005)


@pytest.mark.slow
def test_the_network_with_one_exit_costs_what_the_paper_says():
    assert one_exit(conv_costs(NetworkConfig("w48", 19), *CITYSCAPES)) / GIGA == pytest.approx(
        696.2, abs=0.05
    )


@pytest.mark.slow
def test_the_masked_row_of_the_paper_comes_out_when_images_differ_by_12_points():
    counts = counted(
        NetworkConfig("w48", 19),
        CITYSCAPES,
        (1 - 0.193, 1 - 0.384, 1 - 0.63),
        convention=partial(ConvCost.paper, spread=0.12),
    )
    assert counts == pytest.approx((41.9, 93.9, 259.3, 387.1), abs=0.5)


def test_an_all_masked_image_costs_no_convolution_in_later_stages():
    costs = conv_costs(NetworkConfig("tiny", 5), 64, 96)
    masks = Masks.pyramid(torch.zeros(1, 1, 16, 24, dtype=torch.bool), 4).by_size
    for stage in (2, 3, 4):
        assert stage_macs(costs, stage, None) > 0
        assert stage_macs(costs, stage, masks) == 0
    assert per_exit(costs, (0, 0, 0))[0] == per_exit(costs, (0, 0, 0))[3]


def test_a_full_mask_costs_what_the_dense_network_costs():
    costs = conv_costs(NetworkConfig("tiny", 5), 64, 96)
    masks = Masks.pyramid(torch.ones(1, 1, 16, 24, dtype=torch.bool), 4).by_size
    for convention in (ConvCost.paper, ConvCost.executed):
        for stage in (2, 3, 4):
            assert stage_macs(costs, stage, masks, convention) == stage_macs(costs, stage, None)


def test_a_masked_convolution_is_charged_at_its_own_resolution():
    cost = ConvCost(
        "x", stage=2, head=False, size=(2, 4), channels=3, per_position=9 * 6, maskable=True
    )
    active = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    active[..., ::2, 0] = True
    masks = Masks.pyramid(active, 2).by_size
    assert stage_macs([cost], 2, masks, ConvCost.executed) == 2 * 54 + 6 * 3 * 49
    assert stage_macs([cost], 2, masks) == 2 * 54 + 0.25 * 0.75 * 3 * 49 * 8


def test_stem_stage_one_and_exit_one_are_never_masked():
    costs = conv_costs(NetworkConfig("w18", 19), 64, 64)
    assert {c.maskable for c in costs if c.stage == 1} == {False}
    assert {c.maskable for c in costs if c.stage > 1} == {True}


@pytest.mark.slow
def test_sizes_are_padded_as_the_network_pads_them():
    config = NetworkConfig("tiny", 5)
    assert conv_costs(config, 33, 40) == conv_costs(config, 64, 64)


@pytest.mark.parametrize("exits", ["original", "redesigned"])
def test_a_count_has_the_sizes_that_the_network_puts_out(exits):
    network, sizes = tiny_network(exits=exits), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda *made: sizes.append(tuple(made[2].shape[-2:])))
    network(random_image(height=90, width=130))
    assert [cost.size for cost in conv_costs(network.config, 90, 130)] == sizes


def test_an_empty_size_is_refused():
    with pytest.raises(ConfigError, match="0x32"):
        conv_costs(NetworkConfig("tiny", 5), 0, 32)
