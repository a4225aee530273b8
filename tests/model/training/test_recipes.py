"""The recipes, and what they say about epochs."""

from __future__ import annotations

from anytime_model.data.registry import LAYOUTS
from anytime_model.training.recipe import Adaptivity
from anytime_model.training.recipes import RECIPES
from model.data_factories import tiny_recipe


def test_adaptivity_counts_negative_epochs_from_the_end() -> None:
    assert Adaptivity((1, 1, 1), from_epoch=-3).starts(10) == 7
    assert Adaptivity((1, 1, 1), from_epoch=10).starts(210) == 10


def test_every_recipe_names_a_known_layout_and_splits_that_are_not_the_test_set() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.data in LAYOUTS
        assert "test" not in {recipe.split, recipe.check_split}
        assert len(recipe.exit_weights) == recipe.network.num_exits


def test_the_augmentation_of_the_last_epochs_may_be_another() -> None:
    recipe = RECIPES["camvid-w18"]
    assert recipe.last_epochs is not None
    first = recipe.epochs - recipe.last_epochs.epochs
    assert recipe.augmentation_of(first - 1) == recipe.augmentation
    assert recipe.augmentation_of(first) == recipe.last_epochs.augmentation
    plain = tiny_recipe()
    assert plain.augmentation_of(plain.epochs - 1) == plain.augmentation
