"""Figures show what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from anytime_model.data.camvid import CamVid
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
from anytime_model.evaluation.measure import MeasureSettings, measure
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from model.data_factories import camvid_tree
from model.factories import tiny_network, with_masks


@pytest.fixture(name="streets", scope="module")
def _streets(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(camvid_tree(tmp_path_factory.mktemp("camvid")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


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
        for name, settings in (("dense", MeasureSettings()), ("masked", with_masks(0.5)))
    ]
    draw_trade_off(reports, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert not math.isnan(reports[0].exits[0].score)
