"""CamVid in SegNet's layout, and files of it that are broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_model.data.camvid import CamVid
from anytime_model.data.sample import IGNORE
from anytime_model.errors import DataError
from model.data_factories import (
    camvid_tree,
    halves,
    label_map,
)


def test_camvid_yields_class_ids_and_ignores_void(tmp_path: Path) -> None:
    sample = CamVid(camvid_tree(tmp_path), "test")[0]
    assert sample.name == "Seq05VD_f00000"
    assert sample.image.shape == (48, 64, 3)
    assert sample.labels is not None
    assert sample.labels[0, 0] == IGNORE
    assert set(np.unique(sample.labels)) == {0, 3, IGNORE}


def test_camvid_holds_out_the_end_of_each_drive_and_trains_on_the_rest(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    held = {CamVid(root, "holdout")[i].name for i in range(len(CamVid(root, "holdout")))}
    fit = {CamVid(root, "fit")[i].name for i in range(len(CamVid(root, "fit")))}
    assert held == {"0006R0_f00009", "0016E5_00009"}
    assert not held & fit
    assert len(fit) == 18 + 2  # every fourth of eight validation frames
    assert len(CamVid(root, "fitval")) == 18 + 8


def test_labels_of_another_size_than_their_image_are_refused(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    label_map(root / "labels" / "test" / "Seq05VD_f00000.png", halves((10, 10), 0, 1))
    with pytest.raises(DataError, match="labels of the image's size"):
        CamVid(root, "test")[0]


def test_an_id_that_the_set_does_not_have_is_refused(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    label_map(root / "labels" / "test" / "Seq05VD_f00000.png", halves((48, 64), 0, 12))
    with pytest.raises(DataError, match="holds the id 12"):
        CamVid(root, "test")[0]


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    path = root / "images" / "test" / "Seq05VD_f00000.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"Seq05VD_f00000\.jpg: is no readable image"):
        CamVid(root, "test")[0]


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path)
    (root / "labels" / "test" / "Seq05VD_f00000.png").unlink()
    with pytest.raises(DataError, match="no such file; expected a label file"):
        CamVid(root, "test")[0]
