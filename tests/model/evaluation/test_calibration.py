"""Temperatures are found again, and change no answer."""

from __future__ import annotations

import pytest
import torch

from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import collate
from anytime_model.evaluation.calibration import best_temperature, fold_temperatures, temperatures
from anytime_model.evaluation.measure import MeasureSettings, measure, run_image
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from model.data_factories import camvid_tree
from model.factories import tiny_network


@pytest.fixture(name="streets", scope="module")
def _streets(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(camvid_tree(tmp_path_factory.mktemp("camvid")), "test")


@pytest.fixture(name="network")
def _network() -> AnytimeNetwork:
    return tiny_network(outputs=11)


def test_folding_a_temperature_divides_the_logits_and_changes_no_answer(
    network: AnytimeNetwork, streets: CamVid
) -> None:
    images = collate([streets[0]]).images
    _, before = run_image(network, images, MeasureSettings())
    fold_temperatures(network, (2.0, 1.0, 0.5, 4.0))
    _, after = run_image(network, images, MeasureSettings())
    for a, b, t in zip(before, after, (2.0, 1.0, 0.5, 4.0), strict=True):
        torch.testing.assert_close(b, a / t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 6, generator=random)
    labels = (logits / temperature).softmax(1).multinomial(1, generator=random).squeeze(1)
    assert best_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.slow
def test_calibration_brings_the_calibration_error_down(streets: CamVid) -> None:
    network = tiny_network(outputs=11, seed=2)
    fold_temperatures(network, (0.2,) * 4)
    before = measure(network, streets, MeasureSettings(), model="", data="")
    fold_temperatures(network, temperatures(network, streets, MeasureSettings()))
    after = measure(network, streets, MeasureSettings(), model="", data="")
    for a, b in zip(before.exits, after.exits, strict=True):
        assert b.calibration_error is not None
        assert a.calibration_error is not None
        assert b.calibration_error < a.calibration_error
