"""A ladder is measured as it is served, monotone on request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anytime_model.checkpoint.card import Card, Masking
from anytime_model.checkpoint.store import save_checkpoint
from anytime_model.data.camvid import CLASSES
from anytime_model.errors import ConfigError
from anytime_model.evaluation import ladder
from anytime_model.evaluation.run import MaskOptions
from anytime_model.results import SegmentationMap
from model.data_factories import camvid_tree, label_map
from model.factories import tiny_network


def test_pixels_that_a_rung_loses_are_counted_and_monotone_maps_are_not_recorded(
    tmp_path: Path,
) -> None:
    network = tiny_network(outputs=11)
    card = Card(
        name="streets",
        file="streets.safetensors",
        sha256="",
        config=network.config,
        labels=CLASSES,
        sides=(64,),
        masking=Masking("max_probability", (0.4, 0.4, 0.4)),
    )
    save_checkpoint(network, card, tmp_path)
    data = camvid_tree(tmp_path / "camvid")
    opened = ladder.prepare(
        tmp_path / card.file,
        data,
        "test",
        MaskOptions(enabled=False),
        engine="torch",
        precision="f32",
    )
    for sample in map(opened.source.__getitem__, range(2)):  # exit 1 is always right
        first_map = opened.engine.decode(opened.engine.begin(sample.image).advance())
        assert isinstance(first_map, SegmentationMap)
        label_map(data / "labels" / "test" / f"{sample.name}.png", first_map.labels)
    plain = ladder.run(opened, limit=2)
    product = ladder.run(replace(opened, monotone=True), limit=2)
    for report in (plain, product):
        first, second, *_ = report.paths[0]
        assert (first.score, first.lost, first.calibration_error) == (
            1,
            None,
            pytest.approx(1 - first.confidence, abs=0.02),
        )
        assert second.lost == pytest.approx(1 - second.second)
    assert plain.table().row_count == 4
    with pytest.raises(ConfigError, match="monotone"):
        ladder.record(replace(opened, monotone=True), product, tmp_path)
