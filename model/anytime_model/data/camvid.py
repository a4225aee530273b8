"""CamVid with 11 classes at 480x360: the reduced set and splits that SegNet made known.

    images/{train,val,test}/STEM.jpg    labels/{train,val,test}/STEM.png    ids 0 to 10, void 11

Its validation split is one clip of 6.7 seconds, which selects models badly. Three more splits serve
to train on nearly everything and still choose thresholds on unseen frames:

* `holdout`: the last tenth of the training frames of each drive;
* `fit`: the other training frames, and every fourth frame of the validation clip;
* `fitval`: the same with all frames of the validation clip.
"""

from __future__ import annotations

from itertools import groupby
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
    Label("sky", "#808080"),
    Label("building", "#800000"),
    Label("pole", "#c0c080"),
    Label("road", "#804080"),
    Label("pavement", "#3c28de"),
    Label("tree", "#808000"),
    Label("sign", "#c08080"),
    Label("fence", "#404080"),
    Label("car", "#400080"),
    Label("pedestrian", "#404000"),
    Label("bicyclist", "#0080c0"),
)

SPLITS = ("train", "val", "test", "trainval", "fit", "fitval", "holdout")
HOLDOUT_SHARE = 0.1
VAL_STEP = 4

_EXPECTED = "CamVid with images/{train,val,test}/*.jpg and labels/{train,val,test}/*.png"
_TABLE = np.array([*range(len(CLASSES)), IGNORE], dtype=np.uint8)


class CamVid:
    """One split of CamVid.

    Args:
        root: the folder that holds `images` and `labels`.
        split: one of `SPLITS`.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "segmentation"
    outputs = CLASSES
    skeleton: Skeleton | None = None

    def __init__(self, root: Path, split: str) -> None:
        require_split(split, SPLITS, root)
        require_folder(root, _EXPECTED)
        self._root = root
        self._images = _select(root, split)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        path = self._images[index]
        image = read_image(path)
        label_path = self._root / "labels" / path.parent.name / f"{path.stem}.png"
        labels = read_labels(label_path, image.shape[:2])
        return Sample(path.stem, image, labels=remap(labels, _TABLE, label_path))


def _select(root: Path, split: str) -> list[Path]:
    def images(part: str) -> list[Path]:
        return files_in(root / "images" / part, "*.jpg", _EXPECTED)

    match split:
        case "trainval":
            return images("train") + images("val")
        case "fit" | "fitval":
            held = set(_tails(images("train")))
            step = VAL_STEP if split == "fit" else 1
            return [p for p in images("train") if p not in held] + images("val")[::step]
        case "holdout":
            return _tails(images("train"))
        case _:
            return images(split)


def _tails(frames: list[Path]) -> list[Path]:
    """The last tenth of each drive; file names begin with the drive, sorted by time."""
    tails: list[Path] = []
    for _, group in groupby(frames, key=lambda path: path.stem.split("_")[0]):
        drive = list(group)
        tails += drive[len(drive) - max(1, round(HOLDOUT_SHARE * len(drive))) :]
    return tails
