"""Recipes that the data complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.training import progress
from anytime_model.training.finetune import FINE_TUNINGS, STEPS
from anytime_model.training.run import Overrides, recipe_named
from model.data_factories import camvid_tree, kites_tree, lspet_tree, shapes_tree
from model.factories import tiny_network


def test_outputs_task_and_sizes_come_from_a_folder_of_classes(tmp_path: Path) -> None:
    recipe = recipe_named("finetune-lite", data=shapes_tree(tmp_path, images=20))
    assert recipe.network == LiteConfig("lite0", outputs=3)
    assert recipe.ladder == (48, 96)
    assert isinstance(recipe.augmentation, SegmentationAugmentation)
    assert recipe.augmentation.crop == (64, 96)
    assert recipe.epochs == STEPS[0] // 2


def test_a_folder_of_people_makes_a_recipe_for_joints(tmp_path: Path) -> None:
    recipe = recipe_named("finetune-w18", Overrides(epochs=7), kites_tree(tmp_path))
    assert recipe.network == NetworkConfig("w18", outputs=4, task="pose")
    assert recipe.ladder == (128,)
    assert isinstance(recipe.augmentation, PoseAugmentation)
    assert recipe.augmentation.size == (128, 128)
    assert recipe.epochs == 7


def test_published_data_sets_can_be_fine_tuned_on_as_well(tmp_path: Path) -> None:
    assert recipe_named("finetune-lite", data=camvid_tree(tmp_path / "c")).network.outputs == 11
    assert recipe_named("finetune-lite", data=lspet_tree(tmp_path / "l")).network.outputs == 14


@pytest.mark.parametrize("name", sorted(FINE_TUNINGS))
def test_a_fine_tuning_without_data_asks_for_them(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is completed by its data set"):
        recipe_named(name)


def test_an_unknown_recipe_lists_the_fine_tunings_too() -> None:
    with pytest.raises(ConfigError, match="finetune-lite, finetune-w18"):
        recipe_named("finetune")


def test_progress_of_another_number_of_classes_is_refused_with_the_cure(tmp_path: Path) -> None:
    found = tiny_network(outputs=3).state_dict()
    with pytest.raises(CheckpointError, match=r"another network .*predict.* Give the data set as"):
        progress.restore(tiny_network(outputs=4), found, tmp_path / "progress.pt")
