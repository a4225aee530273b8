"""A data set of one's own: a folder that a `classes.toml` describes.

    classes.toml              classes or joints, see `description`
    images/NAME.jpg           any depth of folders, any format that Pillow reads
    labels/NAME.png           classes: one label file for each image
    annotations.json          joints: people in COCO's format
    train.txt val.txt         names of images, one a line; optional, see `splits`
    test.txt

The longer side of every image, or of a person's crop, is brought to one length, the side.
"""

from pathlib import Path

from anytime_model.data.files import require_split
from anytime_model.data.folder.description import read_description
from anytime_model.data.folder.faults import check
from anytime_model.data.folder.labelled import LabelledImages
from anytime_model.data.folder.people import People
from anytime_model.data.folder.splits import SPLITS
from anytime_model.data.sample import SampleSource


def open_folder(root: Path, split: str) -> SampleSource:
    """Open a split: labelled images or people, as the folder's `classes.toml` says.

    Args:
        root: the folder.
        split: one of `SPLITS`.

    Raises:
        DataError: a folder or file is missing or malformed.
    """
    require_split(split, SPLITS, root)
    description = read_description(root)
    kind = LabelledImages if description.skeleton is None else People
    return kind(root, split, description)


def open_splits(root: Path) -> tuple[SampleSource, ...]:
    """All splits that a folder has: train, val, and test where a list names it.

    Raises:
        DataError: a folder or file is missing or malformed.
    """
    has_test = (root / "test.txt").exists()
    return tuple(open_folder(root, split) for split in (SPLITS if has_test else SPLITS[:2]))


__all__ = ["SPLITS", "check", "open_folder", "open_splits"]
