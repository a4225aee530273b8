"""Thresholds that are chosen keep their promise, on images that were not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from anytime_model.checkpoint.card import Card, Masking
from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import load_checkpoint, save_checkpoint
from anytime_model.data.camvid import CLASSES, CamVid
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.select import make_engine
from anytime_model.errors import ConfigError
from anytime_model.evaluation import risk_control
from anytime_model.evaluation.ladder import paths_of
from anytime_model.evaluation.risk_control import (
    CANDIDATES,
    ImageLosses,
    Thresholds,
    calibrate,
    choose,
    staircase,
)
from model.data_factories import camvid_tree
from model.factories import tiny_checkpoint, tiny_network

REPETITIONS = 300
RISK = 0.05
MEANS = np.linspace(0.004, 0.12, 30)
"""Of the true losses with each of 30 thresholds, one after the other."""

Losses = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Losses]


def all_or_nothing(random: np.random.Generator, images: int) -> Losses:
    return (random.random((images, 1)) < MEANS).astype(float)


def small(random: np.random.Generator, images: int) -> Losses:
    return random.gamma(0.5, 2, (images, 1)).clip(0, 8) * MEANS


def some_images_are_hard(random: np.random.Generator, images: int) -> Losses:
    hard = random.random((images, 1)) < 0.2
    return np.where(hard, random.uniform(0.5, 1.5, (images, 1)) * 5 * MEANS, 0.0)


@pytest.mark.parametrize("largest_loss", [1.0, 0.25])
@pytest.mark.parametrize("draw", [all_or_nothing, small, some_images_are_hard])
def test_the_promise_is_kept_over_many_calibrations(draw: Draw, largest_loss: float) -> None:
    random = np.random.default_rng(0)
    sequence = [(float(k),) for k in range(len(MEANS))]
    broken, chosen = 0, []
    for _ in range(REPETITIONS):
        seen, unseen = draw(random, 200), draw(random, 5000).clip(0, largest_loss)
        choice = choose(
            lambda t, seen=seen: seen[:, int(t[0])],  # type: ignore[misc]
            sequence,
            risk=RISK,
            confidence=0.95,
            largest_loss=largest_loss,
        )
        index = -1 if choice.thresholds is None else int(choice.thresholds[0])
        chosen.append(index)
        broken += index >= 0 and unseen[:, index].mean() > RISK
    slack = 3 * (0.05 * 0.95 / REPETITIONS) ** 0.5
    assert broken / REPETITIONS <= 0.05 + slack
    # Nor is it kept by masking nothing: the choice is worth a good part of what is allowed.
    assert MEANS[int(np.median(chosen))] > 0.3 * RISK


def test_thresholds_are_tested_from_the_one_that_masks_least_and_the_last_exits_fall_first() -> (
    None
):
    order = list(staircase((0.9, 0.8, 0.7), 2))
    assert order == [(0.9, 0.9), (0.9, 0.8), (0.8, 0.8), (0.8, 0.7), (0.7, 0.7)]
    assert list(CANDIDATES) == sorted(CANDIDATES, reverse=True)


def test_nothing_is_tested_after_a_failure_and_no_masks_are_chosen_if_the_first_fails() -> None:
    tested: list[Thresholds] = []

    def losses(thresholds: Thresholds) -> Losses:
        tested.append(thresholds)
        return np.full(500, 0.2 if thresholds[0] < 0.9 else 0.0)

    choice = choose(losses, [(0.99,), (0.95,), (0.8,), (0.7,)], risk=0.05, confidence=0.95)
    assert choice.thresholds == (0.95,)
    assert choice.failed == (0.8,)
    assert choice.losses.mean() == 0
    assert (0.7,) not in tested
    few = choose(lambda _: np.zeros(10), [(0.99,)], risk=0.05, confidence=0.95)
    assert (few.thresholds, few.failed) == (None, (0.99,))


@pytest.mark.parametrize(("risk", "largest_loss"), [(0.0, 1.0), (0.5, 0.25), (0.1, 1.5)])
def test_a_risk_that_cannot_be_is_refused(risk: float, largest_loss: float) -> None:
    with pytest.raises(ConfigError, match="largest loss"):
        choose(
            lambda _: np.zeros(9), [(0.9,)], risk=risk, confidence=0.9, largest_loss=largest_loss
        )


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return camvid_tree(tmp_path_factory.mktemp("camvid"))


def shipped(folder: Path, sides: tuple[int, ...] = (32, 64)) -> Path:
    network = tiny_network(outputs=11)
    card = Card(
        name="streets",
        file="streets.safetensors",
        sha256="",
        config=network.config,
        labels=CLASSES,
        sides=sides,
        masking=Masking("max_probability", (0.4, 0.4, 0.4)),
    )
    save_checkpoint(network, card, folder)
    return folder / card.file


def losses_of(weights: Path, data: Path) -> ImageLosses:
    engine = make_engine(load_checkpoint(weights), "torch", precision="f32")
    return ImageLosses(engine, CamVid(data, "test"))


def test_where_nothing_is_settled_nothing_differs(tmp_path: Path, data: Path) -> None:
    assert losses_of(shipped(tmp_path), data)((1.1, 1.1, 1.1)).tolist() == [0.0] * 3


def test_where_all_is_settled_the_loss_is_what_later_rungs_would_have_changed(
    tmp_path: Path, data: Path
) -> None:
    losses = losses_of(shipped(tmp_path, ()), data)
    source = CamVid(data, "test")
    engine: LadderEngine = losses._engine
    for index, loss in enumerate(losses((-1.0, -1.0, -1.0))):
        run = engine.begin(source[index].image)
        labels = [engine.decode(run.advance()).labels for _ in range(4)]  # type: ignore[union-attr]
        assert loss == pytest.approx(np.mean(labels[0] != labels[-1]))


def test_what_was_calibrated_is_recorded_and_read_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(risk_control, "CANDIDATES", (1.1, 0.99))
    weights = shipped(tmp_path)
    found = calibrate(
        weights, data, "val", [0.9, 0.01], 0.5, engine="torch", precision="f32", limit=4
    )
    assert [choice.thresholds is None for choice in found.choices] == [True, False]
    card = found.record(tmp_path)
    assert read_manifest(tmp_path)["streets"] == card
    (certificate,) = card.certificates
    assert (certificate.risk, certificate.images) == (0.9, 4)
    assert certificate.sha256 == card.sha256
    assert certificate.sides == (32, 64)
    assert certificate.paths == paths_of(card)
    assert certificate.thresholds == found.choices[1].thresholds
    assert card.rung_criteria(0.9)[0] == card.task.criterion(
        certificate.criterion, certificate.thresholds[0]
    )
    assert found.table().row_count == 2


def test_a_model_that_finds_joints_is_refused(data: Path) -> None:
    engine = make_engine(tiny_checkpoint("pose"), "torch", precision="f32")
    with pytest.raises(ConfigError, match="segmentation"):
        ImageLosses(engine, CamVid(data, "test"))


def test_an_image_without_a_certificate_for_its_risk_is_refused(tmp_path: Path) -> None:
    card = read_manifest(shipped(tmp_path).parent)["streets"]
    assert card.rung_criteria(0.0) == (None,) * 8
    with pytest.raises(ConfigError, match=r"no certificate.*0\.01"):
        card.rung_criteria(0.01)
    assert replace(card, masking=None).rung_criteria() == (None,) * 8
