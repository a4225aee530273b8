"""One's own images with a class for every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from anytime_model.data.files import opened_image, require_size
from anytime_model.data.folder.description import Description
from anytime_model.data.folder.images import find_images, longer_sides, read_at_side, usual_side
from anytime_model.data.folder.splits import select
from anytime_model.data.sample import IGNORE, Sample, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

LARGEST_USUAL_SIDE = 512
"""Px to which larger images are brought where `classes.toml` names no side."""
SAMPLED = 100
"""Images of the training split whose sizes say which side is usual."""


class LabelledImages:
    """One split of a folder of images and label files.

    A label file is a PNG of its image's size. In one 8-bit channel (greyscale or palette) it holds
    the number of each pixel's class in `classes.toml`, from 0; in RGB its colour.

    Args:
        root: the folder.
        split: one of `splits.SPLITS`.
        description: of the classes.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "segmentation"
    skeleton: Skeleton | None = None

    def __init__(self, root: Path, split: str, description: Description) -> None:
        images = find_images(root)
        self._names = select(root, images, split)
        self._images = images
        self._labels = root / "labels"
        self._ids = _ClassIds(description)
        self.outputs: tuple[Label, ...] = description.outputs
        self.side = description.side or _usual_side(images, select(root, images, "train"))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        image, size = read_at_side(self._images[name], self.side)
        ids = Image.fromarray(self._ids.read(self._labels / f"{name}.png", size))
        height, width = image.shape[:2]
        labels = np.array(ids.resize((width, height), Image.Resampling.NEAREST))
        return Sample(name, image, labels=labels)


def _usual_side(images: dict[str, Path], names: list[str]) -> int:
    sampled = names[:: -(-len(names) // SAMPLED)]
    lengths = longer_sides([images[name] for name in sampled])
    return usual_side(lengths or [LARGEST_USUAL_SIDE], LARGEST_USUAL_SIDE)


class _ClassIds:
    """Reads label files as class ids, 255 where there is none.

    Args:
        description: of the classes.
    """

    def __init__(self, description: Description) -> None:
        classes, ignore = description.outputs, description.ignore
        numbers = {number: number for number in range(len(classes))}
        colors = {_packed(label.color): number for number, label in enumerate(classes)}
        if isinstance(ignore, int):
            numbers[ignore] = IGNORE
        elif ignore is not None:
            colors[_packed(ignore)] = IGNORE
        self._numbers = np.array(sorted(numbers)), np.array([numbers[n] for n in sorted(numbers)])
        self._colors = np.array(sorted(colors)), np.array([colors[c] for c in sorted(colors)])
        self._ignored = "" if ignore is None else f", or {ignore} to ignore"
        self._file = description.path.name
        self._count = len(classes)

    def read(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The ids (H, W) of an image of this size.

        Raises:
            DataError: the file is missing, broken or of another size, or a label is no class.
        """
        with opened_image(path, "a label file of that name for the image") as image:
            match image.mode:
                case "L" | "P":
                    found, table = np.asarray(image).astype(np.int32), self._numbers
                case "RGB" | "RGBA":
                    rgb = np.asarray(image.convert("RGB")).astype(np.int32)
                    found, table = rgb @ np.array([1 << 16, 1 << 8, 1]), self._colors
                case mode:
                    raise DataError(
                        path,
                        f"has mode {mode};",
                        "expected class numbers in one 8-bit channel, or colours in RGB.",
                    )
        require_size(path, found.shape, size)
        known, ids = table
        place = np.searchsorted(known, found).clip(max=len(known) - 1)
        wrong = known[place] != found
        if wrong.any():
            self._refuse(path, found, wrong, in_color=table is self._colors)
        translated: npt.NDArray[np.uint8] = ids[place].astype(np.uint8)
        return translated

    def _refuse(
        self,
        path: Path,
        found: npt.NDArray[np.int32],
        wrong: npt.NDArray[np.bool_],
        *,
        in_color: bool,
    ) -> None:
        row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        value = int(found[row, column])
        at = f"at row {row}, column {column};"
        if in_color:
            raise DataError(
                path,
                f"has the colour #{value:06x} {at}",
                f"expected colours of the {self._count} classes in {self._file}{self._ignored}.",
            )
        raise DataError(
            path,
            f"has the label {value} {at}",
            f"expected 0 to {self._count - 1} for the {self._count} classes in "
            f"{self._file}{self._ignored}.",
        )


def _packed(color: str) -> int:
    return int(color[1:], 16)
