"""The measurement runs networks as they are served, counts what they did, and chooses masks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from anytime_model import flops
from anytime_model.anytime import AnytimeNetwork
from anytime_model.checkpoint import save_checkpoint
from anytime_model.confidence import HeatmapMaximum, MaximumProbability, RandomShare
from anytime_model.data.camvid import CLASSES, CamVid
from anytime_model.data.loading import collate, normalise
from anytime_model.data.lspet import JOINTS, SKELETON, Lspet
from anytime_model.errors import ConfigError
from anytime_model.evaluation import run as evaluation
from anytime_model.evaluation.calibration import (
    best_temperature,
    fold_temperatures,
    temperatures,
)
from anytime_model.evaluation.figures import (
    FROZEN_RIGHT,
    FROZEN_WRONG,
    RIGHT,
    UNKNOWN,
    WRONG,
    ExitView,
    draw_trade_off,
    judged,
)
from anytime_model.evaluation.measure import Settings, measure, run_image
from anytime_model.evaluation.thresholds import choose
from anytime_model.manifest import Card, Masking, read_manifest
from model.learning_fakes import camvid_tree, lspet_tree
from model.model_fakes import tiny_card, tiny_network


@pytest.fixture(name="streets", scope="module")
def _streets(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(camvid_tree(tmp_path_factory.mktemp("camvid")), "test")


@pytest.fixture(name="people", scope="module")
def _people(tmp_path_factory: pytest.TempPathFactory) -> Lspet:
    return Lspet(lspet_tree(tmp_path_factory.mktemp("lspet")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


def with_masks(share: float) -> Settings:
    masks = RandomShare(share)
    return Settings(
        criteria=(masks, masks, masks, None), criterion="random", thresholds=(share,) * 3
    )


def test_without_masks_every_multiply_add_is_counted(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    report = measure(network, streets, Settings(), model="tiny", data="streets")
    expected = flops.per_exit(flops.conv_costs(network.config, 48, 64))
    assert [e.macs for e in report.exits] == pytest.approx(expected)
    assert [e.macs_executed for e in report.exits] == pytest.approx(expected)
    assert report.maskable_saved == 0
    assert all(e.masked == 0 and e.masked_right is None for e in report.exits)


def test_masks_cost_less_and_never_more_than_before_them(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    dense = measure(network, streets, Settings(), model="", data="")
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
    states, maps = run_image(network, images, Settings(scale=1.5))
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
    settings = Settings(flip=True)
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
    report = measure(Oracle(9, 11), people, Settings(scale=scale), model="", data="")
    name = JOINTS[joint].name
    assert all(e.by_output[name] == 1.0 for e in report.exits)
    assert report.exits[0].by_output["left wrist"] == 0.0
    assert report.metric == "PCKh@0.5"
    assert report.exits[0].calibration_error is None


def test_network_and_data_must_fit(streets: CamVid, people: Lspet) -> None:
    with pytest.raises(ConfigError, match="segmentation with 5 outputs"):
        measure(tiny_network(), streets, Settings(), model="", data="")
    with pytest.raises(ConfigError, match="the data for pose"):
        measure(tiny_network(outputs=14), people, Settings(), model="", data="")


def test_a_limit_takes_images_evenly_and_ticks_for_each(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    ticks: list[int] = []
    report = measure(
        network, streets, Settings(), model="", data="", limit=2, tick=lambda: ticks.append(1)
    )
    assert report.images == len(ticks) == 2


def test_folding_a_temperature_divides_the_logits_and_changes_no_answer(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    images = collate([streets[0]]).images
    _, before = run_image(network, images, Settings())
    fold_temperatures(network, (2.0, 1.0, 0.5, 4.0))
    _, after = run_image(network, images, Settings())
    for a, b, t in zip(before, after, (2.0, 1.0, 0.5, 4.0), strict=True):
        torch.testing.assert_close(b, a / t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 6, generator=random)
    labels = (logits / temperature).softmax(1).multinomial(1, generator=random).squeeze(1)
    assert best_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_brings_the_calibration_error_down(streets: CamVid) -> None:
    network = tiny_network(outputs=11, seed=2)
    fold_temperatures(network, (0.2,) * 4)
    before = measure(network, streets, Settings(), model="", data="")
    fold_temperatures(network, temperatures(network, streets, Settings()))
    after = measure(network, streets, Settings(), model="", data="")
    for a, b in zip(before.exits, after.exits, strict=True):
        assert b.calibration_error is not None
        assert a.calibration_error is not None
        assert b.calibration_error < a.calibration_error


def test_the_boldest_threshold_that_loses_little_is_chosen(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    bold = choose(network, streets, Settings(), allowed_loss=1.0, candidates=(0.9, 0.5, 0.2))
    assert bold.threshold == 0.2
    assert [t for t, _ in bold.tried] == [0.9, 0.5, 0.2]
    assert bold.tried[-1][1].maskable_saved >= bold.tried[0][1].maskable_saved
    assert bold.unmasked.maskable_saved == 0
    none = choose(network, streets, Settings(), allowed_loss=-1.0, candidates=(0.9, 0.5))
    assert none.threshold is None
    assert len(none.tried) == 1


def shipped(folder: Path, network: AnytimeNetwork) -> Path:
    card = Card(
        name="streets",
        file="streets.safetensors",
        sha256="",
        config=network.config,
        labels=CLASSES,
        masking=Masking("max_probability", (0.4, 0.4, 0.4)),
    )
    save_checkpoint(network, card, folder)
    return folder / card.file


def test_an_evaluation_takes_masks_and_scale_from_the_manifest(
    tmp_path: Path, network: AnytimeNetwork
) -> None:
    weights, data = shipped(tmp_path / "w", network), camvid_tree(tmp_path / "camvid")
    prepared = evaluation.prepare(weights, data, "test")
    assert prepared.settings.thresholds == (0.4, 0.4, 0.4)
    assert prepared.settings.criteria is not None
    assert prepared.settings.criteria[0] == MaximumProbability(0.4)
    assert prepared.data_name == "CamVid test"
    report = evaluation.run(prepared, limit=1)
    evaluation.record(prepared, report, weights.parent)
    quality = read_manifest(weights.parent)["streets"].quality
    assert quality is not None
    assert quality.per_exit == tuple(round(e.score, 4) for e in report.exits)
    assert quality.dataset == "CamVid test"


def test_masks_can_be_turned_off_or_replaced(tmp_path: Path, network: AnytimeNetwork) -> None:
    weights, data = shipped(tmp_path / "w", network), camvid_tree(tmp_path / "camvid")

    def criteria(masks: evaluation.Masks) -> object:
        return evaluation.prepare(weights, data, "test", masks).settings.criteria

    assert criteria(evaluation.Masks(enabled=False)) is None
    replaced = criteria(evaluation.Masks(criterion="random", threshold=0.25))
    assert replaced == (RandomShare(0.25),) * 3 + (None,)
    with pytest.raises(ConfigError, match="no thresholds for 'entropy'"):
        criteria(evaluation.Masks(criterion="entropy"))


def test_a_sheet_is_drawn_for_a_named_image_and_refused_for_an_unknown_one(
    tmp_path: Path, network: AnytimeNetwork
) -> None:
    weights, data = shipped(tmp_path / "w", network), camvid_tree(tmp_path / "camvid")
    prepared = evaluation.prepare(weights, data, "test")
    evaluation.sheet(prepared, "Seq05VD_f00001", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
    with pytest.raises(ConfigError, match="has no image 'nowhere'"):
        evaluation.sheet(prepared, "nowhere", tmp_path / "sheet.png")


def test_a_sheet_of_a_person_shows_joints_peaks_and_settled_pixels(
    tmp_path: Path, people: Lspet
) -> None:
    prepared = evaluation.Evaluation(
        tiny_network("pose", outputs=14),
        tiny_card("pose", 14),
        people,
        "people",
        Settings(scale=2.0, criteria=(HeatmapMaximum(0.1),) * 3 + (None,)),
    )
    evaluation.sheet(prepared, people[0].name, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert len(sheet.convert("RGB").getcolors(10**7) or ()) > 100


def test_settled_pixels_are_green_or_vermilion_and_the_others_white_or_black() -> None:
    labels = np.array([[1, 1, 1, 1, 255]], dtype=np.uint8)
    view = ExitView(
        predicted=np.array([[1, 2, 1, 2, 1]], dtype=np.uint8),
        confidence=np.full((1, 5), 0.5, dtype=np.float32),
        settled=np.array([[True, True, False, False, True]]),
    )
    expected = [FROZEN_RIGHT, FROZEN_WRONG, RIGHT, WRONG, UNKNOWN]
    assert [tuple(p) for p in judged(view, labels)[0].tolist()] == expected


def test_the_trade_off_is_drawn_for_several_reports(
    tmp_path: Path, network: AnytimeNetwork, streets: CamVid
) -> None:
    reports = [
        measure(network, streets, settings, model=name, data="streets", limit=1)
        for name, settings in (("dense", Settings()), ("masked", with_masks(0.5)))
    ]
    draw_trade_off(reports, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert not math.isnan(reports[0].exits[0].score)
