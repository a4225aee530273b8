"""Data sets by name and by layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from anytime_model.data import mpii
from anytime_model.data.camvid import CamVid
from anytime_model.data.lspet import Lspet
from anytime_model.data.registry import LAYOUTS, open_layout, recognise
from anytime_model.errors import DataError
from model.data_factories import (
    camvid_tree,
    cityscapes_tree,
    context_tree,
    lspet_tree,
    mpii_json_tree,
    mpii_published_tree,
)

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("camvid", camvid_tree),
        ("lspet", lspet_tree),
        ("cityscapes", cityscapes_tree),
        ("mpii", mpii_json_tree),
        ("mpii", mpii_published_tree),
    ],
)
def test_a_folder_is_recognised_by_its_layout(tmp_path: Path, name: str, build: object) -> None:
    assert recognise(build(tmp_path)) == name  # type: ignore[operator]


def test_pascal_context_is_recognised_in_both_forms(tmp_path: Path) -> None:
    for published in (True, False):
        root = context_tree(tmp_path / str(published), published=published)
        assert recognise(root) == "pascal-context"


def test_an_unknown_folder_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leftImg8bit"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_missing_root_says_what_was_expected_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="expected") as caught:
        open_layout(name, tmp_path / "nowhere", "train")
    assert "nowhere" in str(caught.value.path)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_unknown_split_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"ask for one of .*train"):
        open_layout(name, tmp_path, "everything")


def test_mirroring_twice_is_the_identity_for_every_skeleton() -> None:
    for skeleton in (mpii.SKELETON, Lspet.skeleton):
        assert skeleton is not None
        flip = skeleton.flip
        assert [flip[flip[j]] for j in range(len(flip))] == list(range(len(flip)))


@pytest.mark.skipif(not SHARED.exists(), reason="the real data sets are not here")
def test_the_real_sets_have_their_published_counts() -> None:
    sizes = {s: len(CamVid(SHARED / "camvid", s)) for s in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    people = {s: len(Lspet(SHARED / "lspet", s)) for s in ("train", "val", "test")}
    assert people == {"train": 8054 - 135, "val": 500 - 3, "test": 500 - 9}
