"""MPII as published and with HRNet's annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_model.data.mpii import Mpii
from anytime_model.errors import DataError
from model.data_factories import (
    mpii_json_tree,
    mpii_published_tree,
    picture,
)


@pytest.mark.parametrize("tree", [mpii_json_tree, mpii_published_tree])
def test_mpii_crops_a_square_around_the_person(tmp_path: Path, tree: object) -> None:
    sample = Mpii(tree(tmp_path), "train")[0]  # type: ignore[operator]
    assert sample.image.shape == (256, 256, 3)
    assert sample.joints is not None
    # The centre (150, 85) is lowered by 15 px; the square has 250 px.
    expected = (np.array([100.0, 50.0]) - [150, 100]) * 256 / 250 + 127.5
    np.testing.assert_allclose(sample.joints[0], [*expected, 1], atol=1e-4)
    assert sample.joints[15].tolist() == [0, 0, 0]


def test_mpii_takes_the_head_size_from_its_own_box(tmp_path: Path) -> None:
    validation = Mpii(mpii_json_tree(tmp_path / "json"), "val")[0]
    published = Mpii(mpii_published_tree(tmp_path / "mat"), "train")[0]
    assert validation.head_px == pytest.approx(0.6 * 50 * 256 / 250)
    assert published.head_px == pytest.approx(0.6 * 50 * 256 / 250)


def test_mpii_published_has_no_validation_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid\.json: no such file"):
        Mpii(mpii_published_tree(tmp_path), "val")


def test_mpii_fills_what_lies_outside_the_picture_with_grey(tmp_path: Path) -> None:
    root = mpii_json_tree(tmp_path)
    picture(root / "images" / "0001.jpg", (40, 40))
    corner = Mpii(root, "train")[0].image[-1, -1]
    assert corner.tolist() == [124, 116, 104]


def test_a_malformed_mpii_record_is_refused(tmp_path: Path) -> None:
    root = mpii_json_tree(tmp_path)
    (root / "annot" / "train.json").write_text('[{"image": "0001.jpg"}]', encoding="utf-8")
    with pytest.raises(DataError, match="record 0 is malformed"):
        Mpii(root, "train")


def test_a_file_that_is_no_matlab_file_is_refused(tmp_path: Path) -> None:
    root = mpii_published_tree(tmp_path)
    (root / "mpii_human_pose_v1_u12_1.mat").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(DataError, match="is no MATLAB file"):
        Mpii(root, "train")
