"""A training can stop anywhere and go on as if it had not, and ends well when things go wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch

from anytime_model.data.augment import PoseAugmentation
from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import collate
from anytime_model.errors import CheckpointError
from anytime_model.evaluation.check import quick_scores
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.training import progress
from anytime_model.training.export import trained_network
from anytime_model.training.loop import CURVES, PROGRESS
from anytime_model.training.losses import HeatmapError
from anytime_model.training.recipe import Adam, Recipe, Sgd
from anytime_model.training.recipes import RECIPES
from anytime_model.training.statistics import refresh
from anytime_model.training.stopping import TrainingStoppedError
from model.data_factories import camvid_tree, lspet_tree, tiny_recipe
from model.fakes import Silent
from model.short_training import train

pytestmark = pytest.mark.slow


def weights(out: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    return progress.load(out / PROGRESS, recipe.name).network


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return camvid_tree(tmp_path / "camvid")


@pytest.mark.parametrize("steps", [2, 5, 7])
def test_a_stopped_training_resumes_bit_for_bit(tmp_path: Path, data: Path, steps: int) -> None:
    recipe = tiny_recipe()
    train(recipe, data, tmp_path / "whole")
    with pytest.raises(TrainingStoppedError, match=f"stopped after step {steps}"):
        train(recipe, data, tmp_path / "parts", stop_after=steps)
    train(recipe, data, tmp_path / "parts", resume=True)
    whole = progress.load(tmp_path / "whole" / PROGRESS, recipe.name)
    parts = progress.load(tmp_path / "parts" / PROGRESS, recipe.name)
    assert (whole.step, whole.epoch) == (parts.step, parts.epoch) == (10, 2)
    assert whole.average is not None
    assert parts.average is not None
    for name, tensor in whole.network.items():
        assert torch.equal(tensor, parts.network[name]), name
        assert torch.equal(whole.average[name], parts.average[name]), name


@pytest.mark.parametrize("optimiser", [Sgd(0.01, weight_decay=5e-4), Adam(1e-3)])
def test_every_optimiser_resumes_bit_for_bit(
    tmp_path: Path, data: Path, optimiser: Sgd | Adam
) -> None:
    recipe = tiny_recipe(optimiser=optimiser, epochs=1, adaptivity=None, average=None)
    train(recipe, data, tmp_path / "whole")
    with pytest.raises(TrainingStoppedError):
        train(recipe, data, tmp_path / "parts", stop_after=3)
    train(recipe, data, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole", recipe), weights(tmp_path / "parts", recipe)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_seed_reproduces_a_training_and_another_does_not(tmp_path: Path, data: Path) -> None:
    recipe = tiny_recipe(epochs=1, adaptivity=None)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(recipe, seed=seed), data, tmp_path / name)
    a, b, c = (weights(tmp_path / name, recipe) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_training_learns_the_street_of_the_miniature_set(tmp_path: Path, data: Path) -> None:
    callback = Silent()
    recipe = tiny_recipe(epochs=30, optimiser=Adam(1e-2), adaptivity=None, average=None)
    train(recipe, data, tmp_path / "out", callback=callback)
    assert mean(callback.losses[-5:]) < 0.3 * mean(callback.losses[:5])
    network = trained_network(recipe, tmp_path / "out" / PROGRESS)
    source = CamVid(data, "test")
    refresh(network, [collate([source[i] for i in range(3)])])
    assert quick_scores(network, source, torch.device("cpu"))[-1] > 0.8


def test_masks_are_used_from_their_epoch_on(tmp_path: Path, data: Path) -> None:
    callback = Silent()
    train(tiny_recipe(epochs=3), data, tmp_path / "out", callback=callback)
    assert all(active == (1.0, 1.0, 1.0) for active in callback.active[:5])
    assert any(active[0] < 1.0 for active in callback.active[5:])


def test_curves_have_one_row_for_each_stretch_of_steps_even_after_a_resume(
    tmp_path: Path, data: Path
) -> None:
    recipe = tiny_recipe()
    with pytest.raises(TrainingStoppedError):
        train(recipe, data, tmp_path / "out", stop_after=8)
    train(recipe, data, tmp_path / "out", resume=True)
    with (tmp_path / "out" / CURVES).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row["loss"]]
    assert steps == sorted(set(steps))
    assert [row["epoch"] for row in rows if row["check_4"]] == ["1", "2"]
    assert all(0 <= float(row["check_4"]) <= 1 for row in rows if row["check_4"])


def test_a_branch_cools_down_a_copy_and_leaves_the_original(tmp_path: Path, data: Path) -> None:
    recipe = tiny_recipe(epochs=4, adaptivity=None)
    with pytest.raises(TrainingStoppedError):
        train(recipe, data, tmp_path / "long", stop_after=5)
    stem = tmp_path / "long" / PROGRESS
    before = stem.read_bytes()
    train(replace(recipe, epochs=2), data, tmp_path / "short", branch=stem)
    assert stem.read_bytes() == before
    with (tmp_path / "short" / CURVES).open(encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["loss"]] == [2, 4, 7, 9]
    assert progress.load(tmp_path / "short" / PROGRESS, recipe.name).epoch == 2


def test_a_folder_that_holds_a_training_is_not_overwritten(tmp_path: Path, data: Path) -> None:
    recipe = tiny_recipe(epochs=1, adaptivity=None)
    train(recipe, data, tmp_path / "out")
    with pytest.raises(CheckpointError, match="holds a training already"):
        train(recipe, data, tmp_path / "out")


def test_progress_of_another_recipe_is_refused(tmp_path: Path, data: Path) -> None:
    recipe = tiny_recipe(epochs=1, adaptivity=None)
    train(recipe, data, tmp_path / "out")
    with pytest.raises(CheckpointError, match="belongs to the recipe camvid-w18, not other"):
        progress.load(tmp_path / "out" / PROGRESS, "other")


def test_a_full_disk_keeps_the_progress_before(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(adaptivity=None)
    with pytest.raises(TrainingStoppedError):
        train(recipe, data, tmp_path / "out", stop_after=3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(recipe, data, tmp_path / "out", resume=True)
    assert progress.load(tmp_path / "out" / PROGRESS, recipe.name).step == 3
    assert not list((tmp_path / "out").glob("*.partial"))


def memory_of_the_cpu() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")


def memory_of_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("fail", [memory_of_the_cpu, memory_of_python])
def test_running_out_of_memory_says_what_is_kept_and_what_to_do(
    tmp_path: Path, data: Path, fail: Callable[[], None]
) -> None:
    recipe = tiny_recipe(adaptivity=None)
    with pytest.raises(TrainingStoppedError):
        train(recipe, data, tmp_path / "out", stop_after=3)

    class Hungry(Silent):
        def step(self, epoch: int, done: int, total: int, report: object) -> None:
            fail()

    with pytest.raises(TrainingStoppedError, match="smaller --batch") as caught:
        train(recipe, data, tmp_path / "out", resume=True, callback=Hungry())
    assert caught.value.step == 3
    assert progress.load(tmp_path / "out" / PROGRESS, recipe.name).step == 3


def test_an_error_that_is_not_about_memory_is_not_hidden(tmp_path: Path, data: Path) -> None:
    class Broken(Silent):
        def step(self, epoch: int, done: int, total: int, report: object) -> None:
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        train(tiny_recipe(), data, tmp_path / "out", callback=Broken())


def test_pose_trains_too_and_its_maps_approach_the_target(tmp_path: Path) -> None:
    recipe = replace(
        RECIPES["lspet-w18"],
        network=NetworkConfig("tiny", outputs=14, task="pose"),
        augmentation=PoseAugmentation((32, 32), 0.1, 10.0, 0.5),
        loss=HeatmapError(sigma=2.0, localisation=0.002),
        last_epochs=None,
        split="train",
        optimiser=Adam(1e-2),
        epochs=30,
        batch=2,
        half=False,
    )
    callback = Silent()
    train(recipe, lspet_tree(tmp_path / "lspet", people=9), tmp_path / "out", callback=callback)
    assert mean(callback.losses[-4:]) < 0.9 * callback.losses[0]
    assert len(callback.scores[-1]) == 4
