"""An evaluation takes masks, scale and engine from the card and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from anytime_model.checkpoint.card import Card, Masking
from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.confidence import HeatmapMaximum, MaximumProbability, RandomShare
from anytime_model.data.camvid import CLASSES
from anytime_model.data.lspet import Lspet
from anytime_model.errors import ConfigError
from anytime_model.evaluation import run as evaluation
from anytime_model.evaluation.measure import MeasureSettings
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from model.data_factories import camvid_tree, lspet_tree
from model.factories import tiny_card, tiny_network


@pytest.fixture(name="people", scope="module")
def _people(tmp_path_factory: pytest.TempPathFactory) -> Lspet:
    return Lspet(lspet_tree(tmp_path_factory.mktemp("lspet")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


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

    def criteria(masks: evaluation.MaskOptions) -> object:
        return evaluation.prepare(weights, data, "test", masks).settings.criteria

    assert criteria(evaluation.MaskOptions(enabled=False)) is None
    replaced = criteria(evaluation.MaskOptions(criterion="random", threshold=0.25))
    assert replaced == (RandomShare(0.25),) * 3 + (None,)
    with pytest.raises(ConfigError, match="no thresholds for 'entropy'"):
        criteria(evaluation.MaskOptions(criterion="entropy"))


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
        MeasureSettings(scale=2.0, criteria=(HeatmapMaximum(0.1),) * 3 + (None,)),
    )
    evaluation.sheet(prepared, people[0].name, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert len(sheet.convert("RGB").getcolors(10**7) or ()) > 100


def test_the_environment_chooses_the_engine_unless_one_is_named(
    tmp_path: Path, network: AnytimeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, data = shipped(tmp_path / "w", network), camvid_tree(tmp_path / "camvid")
    monkeypatch.setenv("ANYTIME_ENGINE", "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        evaluation.prepare(weights, data, "test")
    prepared = evaluation.prepare(weights, data, "test", engine="torch")
    assert evaluation.run(prepared, limit=1).images == 1
