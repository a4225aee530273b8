"""A training's parts are built from a recipe, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anytime_model.errors import ConfigError
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.training.recipes import RECIPES
from anytime_model.training.run import Overrides, pretrain, recipe_named, siblings, warm_start
from model.data_factories import camvid_tree, tiny_recipe
from model.factories import save_tiny, tiny_network
from model.short_training import train


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return camvid_tree(tmp_path / "camvid")


def test_a_branch_may_continue_a_recipe_that_differs_only_in_its_masks() -> None:
    names = siblings(RECIPES["camvid-w18-ee-rh"])
    assert "camvid-w18" in names
    assert "camvid-w18-ee" not in names
    assert "lspet-w18" not in names


def test_recipe_and_data_must_fit(tmp_path: Path, data: Path) -> None:
    recipe = tiny_recipe(network=NetworkConfig("tiny", outputs=5))
    with pytest.raises(ConfigError, match="5 outputs, the data set 11"):
        train(recipe, data, tmp_path / "out")


def test_a_taught_recipe_needs_a_teacher_of_its_own_classes(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="needs a teacher"):
        train(tiny_recipe(taught=1.0), data, tmp_path / "out")
    card = save_tiny(tmp_path / "weights")
    with pytest.raises(ConfigError, match="5 outputs"):
        train(
            tiny_recipe(taught=1.0),
            data,
            tmp_path / "out",
            teacher=tmp_path / "weights" / card.file,
        )


def test_key_points_are_needed_by_recipes_that_merge_them_and_by_no_others(
    tmp_path: Path, data: Path
) -> None:
    with pytest.raises(ConfigError, match=r"needs a file of key points with --keypoints"):
        train(tiny_recipe(keypoints=True), data, tmp_path / "out")
    with pytest.raises(ConfigError, match="leave out"):
        train(tiny_recipe(), data, tmp_path / "out", keypoints=tmp_path / "found.npz")


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="camvid-w18"):
        recipe_named("nonsense")


def test_overrides_change_only_what_they_name() -> None:
    changed = recipe_named("camvid-w18", Overrides(epochs=3, seed=7))
    assert changed == replace(RECIPES["camvid-w18"], epochs=3, seed=7)


def test_a_warm_start_takes_the_backbone_and_leaves_other_heads(tmp_path: Path) -> None:
    card = save_tiny(tmp_path, seed=3)
    trained = tiny_network(seed=3)
    other = tiny_network(outputs=7, seed=4)
    fresh = warm_start(other, tmp_path / card.file)
    stage = {n: t for n, t in other.state_dict().items() if n.startswith("stages.2.")}
    assert stage
    for name, tensor in stage.items():
        torch.testing.assert_close(tensor, trained.state_dict()[name], rtol=1e-3, atol=1e-3)
    assert all("predict" in name or "num_batches" in name for name in fresh)


def test_a_family_without_published_weights_cannot_be_pretrained() -> None:
    with pytest.raises(ConfigError, match=r"'hrnet'.*`pretrained`"):
        pretrain(tiny_network())
