"""PASCAL-Context with its 59 classes, as published or reduced.

    JPEGImages/NAME.jpg                                 of VOC 2010
    trainval/NAME.mat, labels.txt                       as published: 459 categories
    ImageSets/Main/{train,val}.txt                      of VOC 2010, a NAME a line

or, in the form that segmentation frameworks share,

    SegmentationClassContext/NAME.png                   0 background, 1 to 59 the classes
    ImageSets/SegmentationContext/{train,val}.txt

These sit inside VOCdevkit/VOC2010. Background is ignored, as in the paper's 59-class protocol.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from anytime_model.data.files import (
    read_image,
    read_labels,
    read_lines,
    remap,
    require_folder,
    require_split,
)
from anytime_model.data.sample import IGNORE, Sample, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

NAMES = (
    "aeroplane",
    "bag",
    "bed",
    "bedclothes",
    "bench",
    "bicycle",
    "bird",
    "boat",
    "book",
    "bottle",
    "building",
    "bus",
    "cabinet",
    "car",
    "cat",
    "ceiling",
    "chair",
    "cloth",
    "computer",
    "cow",
    "cup",
    "curtain",
    "dog",
    "door",
    "fence",
    "floor",
    "flower",
    "food",
    "grass",
    "ground",
    "horse",
    "keyboard",
    "light",
    "motorbike",
    "mountain",
    "mouse",
    "person",
    "plate",
    "platform",
    "pottedplant",
    "road",
    "rock",
    "sheep",
    "shelves",
    "sidewalk",
    "sign",
    "sky",
    "snow",
    "sofa",
    "table",
    "track",
    "train",
    "tree",
    "truck",
    "tvmonitor",
    "wall",
    "water",
    "window",
    "wood",
)

SPLITS = ("train", "val")

_EXPECTED = (
    "PASCAL-Context with JPEGImages/*.jpg and either trainval/*.mat, labels.txt and "
    "ImageSets/Main/SPLIT.txt, or SegmentationClassContext/*.png and "
    "ImageSets/SegmentationContext/SPLIT.txt"
)


def _colour(index: int) -> str:
    """The colour that PASCAL VOC gives an index: its bits dealt out to red, green and blue."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return "#{:02x}{:02x}{:02x}".format(*channels)


CLASSES = tuple(Label(name, _colour(i)) for i, name in enumerate(NAMES, start=1))


class PascalContext:
    """One split of PASCAL-Context.

    Args:
        root: the folder that holds `JPEGImages`; VOCdevkit and what is above it will do as well.
        split: train or val.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "segmentation"
    outputs = CLASSES
    skeleton: Skeleton | None = None

    def __init__(self, root: Path, split: str) -> None:
        require_split(split, SPLITS, root)
        inner = [root, root / "VOC2010", root / "VOCdevkit" / "VOC2010"]
        base = next((p for p in inner if (p / "JPEGImages").is_dir()), root)
        self._images = require_folder(base / "JPEGImages", _EXPECTED)
        lists = base / "ImageSets"
        if (base / "SegmentationClassContext").is_dir():
            self._labels: _Labels = _Reduced(base / "SegmentationClassContext")
            self._names = read_lines(lists / "SegmentationContext" / f"{split}.txt", _EXPECTED)
        else:
            folders = [base / "trainval", root / "trainval"]
            self._labels = _Published(next((p for p in folders if p.is_dir()), folders[0]))
            known = self._labels.names()
            listed = read_lines(lists / "Main" / f"{split}.txt", _EXPECTED)
            self._names = [name for name in listed if name in known]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        image = read_image(self._images / f"{name}.jpg")
        return Sample(name, image, labels=self._labels.read(name, image.shape[:2]))


class _Labels(Protocol):
    def read(self, name: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]: ...


class _Reduced:
    """Labels already reduced to 59 classes: PNG files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = np.array([IGNORE, *range(len(CLASSES))], dtype=np.uint8)

    def read(self, name: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Class ids of an image, 255 for background."""
        path = self._folder / f"{name}.png"
        return remap(read_labels(path, size), self._table, path)


class _Published:
    """Labels as published: 459 categories in MATLAB files, named by `labels.txt` beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = require_folder(folder, _EXPECTED)
        beside = [folder / "labels.txt", folder.parent / "labels.txt"]
        path = next((p for p in beside if p.exists()), beside[-1])
        ids: dict[str, int] = {}
        for line in read_lines(path, "labels.txt of PASCAL-Context, lines such as `2: aeroplane`"):
            number, _, category = line.partition(":")
            if number.strip().isdigit():
                ids[category.strip()] = int(number)
        missing = [name for name in NAMES if name not in ids]
        if missing:
            raise DataError(path, f"lacks {', '.join(missing)};", "expected all 459 categories.")
        self._table = np.full(max(ids.values()) + 1, IGNORE, dtype=np.uint8)
        for index, name in enumerate(NAMES):
            self._table[ids[name]] = index

    def names(self) -> set[str]:
        """Images that have labels."""
        return {path.stem for path in self._folder.glob("*.mat")}

    def read(self, name: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Class ids of an image, 255 for everything that is none of the 59 classes."""
        path = self._folder / f"{name}.mat"
        try:
            found = np.asarray(loadmat(path)["LabelMap"])
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise DataError(
                path, f"is no label file ({error!r});", "expected a matrix `LabelMap`."
            ) from error
        if found.shape != size or int(found.max(initial=0)) >= len(self._table):
            raise DataError(
                path,
                f"is {found.shape} px with ids up to {found.max(initial=0)}, its image {size};",
                f"expected the image's size and ids below {len(self._table)}.",
            )
        labels: npt.NDArray[np.uint8] = self._table[found.astype(np.int64)]
        return labels
