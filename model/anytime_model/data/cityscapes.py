"""Cityscapes as published: leftImg8bit and gtFine, with the 19 training classes.

    leftImg8bit/{train,val,test}/CITY/NAME_leftImg8bit.png
    gtFine/{train,val,test}/CITY/NAME_gtFine_labelIds.png

Labels are read from the published `labelIds`, so the separate step that writes `labelTrainIds` is
not needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anytime_model.data.files import (
    files_in,
    read_image,
    read_labels,
    remap,
    require_folder,
    require_split,
)
from anytime_model.data.sample import IGNORE, Sample, Skeleton
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

CLASSES = (
    Label("road", "#804080"),
    Label("sidewalk", "#f423e8"),
    Label("building", "#464646"),
    Label("wall", "#66669c"),
    Label("fence", "#be9999"),
    Label("pole", "#999999"),
    Label("traffic light", "#faaa1e"),
    Label("traffic sign", "#dcdc00"),
    Label("vegetation", "#6b8e23"),
    Label("terrain", "#98fb98"),
    Label("sky", "#4682b4"),
    Label("person", "#dc143c"),
    Label("rider", "#ff0000"),
    Label("car", "#00008e"),
    Label("truck", "#000046"),
    Label("bus", "#003c64"),
    Label("train", "#005064"),
    Label("motorcycle", "#0000e6"),
    Label("bicycle", "#770b20"),
)

TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The published label id of each class above; all others, 0 to 33, are ignored."""

SPLITS = ("train", "val", "test")

_EXPECTED = (
    "Cityscapes with leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and "
    "gtFine/SPLIT/CITY/*_gtFine_labelIds.png"
)


def _table() -> np.ndarray:
    table = np.full(34, IGNORE, dtype=np.uint8)
    table[list(TRAINED_IDS)] = range(len(CLASSES))
    return table


class Cityscapes:
    """One split of Cityscapes.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`.
        split: train, val or test.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "segmentation"
    outputs = CLASSES
    skeleton: Skeleton | None = None

    def __init__(self, root: Path, split: str) -> None:
        require_split(split, SPLITS, root)
        require_folder(root / "gtFine" / split, _EXPECTED)
        self._labels = root / "gtFine" / split
        self._images = files_in(root / "leftImg8bit" / split, "*/*_leftImg8bit.png", _EXPECTED)
        self._table = _table()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        path = self._images[index]
        name = path.name.removesuffix("_leftImg8bit.png")
        image = read_image(path)
        label_path = self._labels / path.parent.name / f"{name}_gtFine_labelIds.png"
        labels = read_labels(label_path, image.shape[:2])
        return Sample(name, image, labels=remap(labels, self._table, label_path))
