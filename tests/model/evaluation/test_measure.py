"""The measurement scores maps as they are served, and counts what was computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from anytime_model import flops
from anytime_model.checkpoint import Checkpoint
from anytime_model.confidence import MaximumProbability
from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import collate, normalise
from anytime_model.data.lspet import JOINTS, SKELETON, Lspet
from anytime_model.engines.select import make_network_engine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.measure import EngineNetwork, MeasureSettings, measure, run_image
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from model.comparing import native_isas
from model.data_factories import camvid_tree, lspet_tree
from model.factories import tiny_card, tiny_network, with_masks


@pytest.fixture(name="streets", scope="module")
def _streets(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(camvid_tree(tmp_path_factory.mktemp("camvid")), "test")


@pytest.fixture(name="people", scope="module")
def _people(tmp_path_factory: pytest.TempPathFactory) -> Lspet:
    return Lspet(lspet_tree(tmp_path_factory.mktemp("lspet")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


def test_without_masks_every_multiply_add_is_counted(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    report = measure(network, streets, MeasureSettings(), model="tiny", data="streets")
    expected = flops.per_exit(flops.conv_costs(network.config, 48, 64))
    assert [e.macs for e in report.exits] == pytest.approx(expected)
    assert [e.macs_executed for e in report.exits] == pytest.approx(expected)
    assert report.maskable_saved == 0
    assert all(e.masked == 0 and e.masked_right is None for e in report.exits)


def test_masks_cost_less_and_never_more_than_before_them(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    dense = measure(network, streets, MeasureSettings(), model="", data="")
    half = measure(network, streets, with_masks(0.5), model="", data="")
    assert half.exits[0].macs == dense.exits[0].macs
    assert half.exits[0].masked == pytest.approx(0.5, abs=0.01)
    for before, after in zip(half.exits, half.exits[1:], strict=False):
        assert after.masked >= before.masked
        assert after.macs > before.macs
    assert half.exits[-1].macs < dense.exits[-1].macs
    assert 0 < half.maskable_saved < 1


def test_everything_masked_saves_all_that_can_be_saved(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    report = measure(network, streets, with_masks(1.0), model="", data="")
    assert report.maskable_saved == pytest.approx(1.0)
    assert report.exits[3].score == report.exits[0].score
    assert report.exits[3].macs < 1.05 * report.exits[0].macs


def test_the_masked_that_are_right_are_counted_among_labelled_pixels(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    report = measure(network, streets, with_masks(1.0), model="", data="")
    assert report.exits[0].masked_right == pytest.approx(report.exits[0].accuracy)


def test_a_scale_enlarges_the_input_and_brings_the_map_back(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    images = collate([streets[0]]).images
    states, maps = run_image(network, images, MeasureSettings(scale=1.5))
    assert states[0].image_size == (72, 96)
    assert maps[0].shape == (1, 11, 48, 64)
    large = F.interpolate(normalise(images), size=(72, 96), mode="bilinear")
    direct = F.interpolate(
        network.upsample(network(large)[3]), size=(48, 64), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(maps[3], direct)


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_a_flip_test_gives_a_mirrored_image_the_mirrored_map(task: str) -> None:
    network = tiny_network(task, outputs=14)
    image = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    settings = MeasureSettings(flip=True)
    _, maps = run_image(network, image, settings, SKELETON)
    _, mirrored = run_image(network, image.flip(-1), settings, SKELETON)
    back = [m.flip(-1) for m in mirrored]
    if task == "pose":
        back = [m[:, list(SKELETON.flip)] for m in back]
    for a, b in zip(maps, back, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class Oracle(AnytimeNetwork):
    """A pose network whose every exit marks one place, for whoever asks."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__(tiny_network("pose", outputs=14).config)
        self.place = (x, y)

    def forward(self, image, criteria=None):  # type: ignore[no-untyped-def]
        states = super().forward(image, criteria)
        factor = image.shape[-1] / 32
        column, row = ((factor * (v + 0.5) - 0.5 - 1.5) / 4 for v in self.place)
        maps = torch.zeros_like(states[0].logits)
        maps[..., round(row), round(column)] = 1
        return tuple(replace(state, logits=maps) for state in states)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_joints_found_where_they_are_count_as_right_at_any_scale(
    people: Lspet, scale: float
) -> None:
    joint = 5  # at (9, 11) px: within 2 px of a cell's centre, half a head is 2.5 px
    report = measure(Oracle(9, 11), people, MeasureSettings(scale=scale), model="", data="")
    name = JOINTS[joint].name
    assert all(e.by_output[name] == 1.0 for e in report.exits)
    assert report.exits[0].by_output["left wrist"] == 0.0
    assert report.metric == "PCKh@0.5"
    assert report.exits[0].calibration_error is None


def test_network_and_data_must_fit(streets: CamVid, people: Lspet) -> None:
    with pytest.raises(ConfigError, match="segmentation with 5 outputs"):
        measure(tiny_network(), streets, MeasureSettings(), model="", data="")
    with pytest.raises(ConfigError, match="the data for pose"):
        measure(tiny_network(outputs=14), people, MeasureSettings(), model="", data="")


def test_a_limit_takes_images_evenly_and_ticks_for_each(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    ticks: list[int] = []
    report = measure(
        network,
        streets,
        MeasureSettings(),
        model="",
        data="",
        limit=2,
        tick=lambda: ticks.append(1),
    )
    assert report.images == len(ticks) == 2


def test_an_engine_measures_what_its_network_does(network: AnytimeNetwork, streets: CamVid) -> None:
    masks = MaximumProbability(0.4)
    settings = MeasureSettings(criteria=(None, masks, masks, None), scale=1.5, flip=True)
    checkpoint = Checkpoint(network, tiny_card(outputs=11))
    kinds = ["torch", *(["native"] if native_isas() else [])]
    expected = measure(network, streets, settings, model="", data="")
    for kind in kinds:
        engine = EngineNetwork(make_network_engine(checkpoint, kind, precision="f32"), network)
        found = measure(engine, streets, settings, model="", data="")
        assert found.maskable_saved == pytest.approx(expected.maskable_saved, abs=1e-3)
        for ours, theirs in zip(found.exits, expected.exits, strict=True):
            assert ours.macs == pytest.approx(theirs.macs, rel=1e-3)
            assert ours.accuracy == pytest.approx(theirs.accuracy, abs=1e-3)
            assert ours.masked == pytest.approx(theirs.masked, abs=1e-3)


def test_an_engine_measures_one_image_at_a_time(network: AnytimeNetwork) -> None:
    checkpoint = Checkpoint(network, tiny_card(outputs=11))
    engine = EngineNetwork(make_network_engine(checkpoint, "torch"), network)
    with pytest.raises(ConfigError, match="one image at a time"):
        engine(torch.zeros(2, 3, 32, 32))
