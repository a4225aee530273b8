"""The registry of data sets by name, and recognition of the one that a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anytime_model.data.camvid import CamVid
from anytime_model.data.cityscapes import Cityscapes
from anytime_model.data.files import require_folder
from anytime_model.data.folder import open_folder
from anytime_model.data.lspet import Lspet
from anytime_model.data.mpii import Mpii
from anytime_model.data.pascal_context import PascalContext
from anytime_model.data.sample import SampleSource
from anytime_model.errors import DataError

Opener = Callable[[Path, str], SampleSource]


@dataclass(frozen=True, slots=True)
class Layout:
    """One data set as its publisher lays it out.

    Attributes:
        title: the data set's own name.
        open: opens a split, given the folder and the split's name.
        marks: files or folders of which any shows that a folder holds this set.
    """

    title: str
    open: Opener
    marks: tuple[str, ...]


OWN = "folder"
"""The layout of data sets that users make themselves."""

LAYOUTS = {
    OWN: Layout("own data", open_folder, ("classes.toml",)),
    "cityscapes": Layout("Cityscapes", Cityscapes, ("leftImg8bit",)),
    "mpii": Layout(
        "MPII", Mpii, ("annot", "mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_2")
    ),
    "pascal-context": Layout(
        "PASCAL-Context",
        PascalContext,
        ("JPEGImages", "VOC2010", "VOCdevkit"),
    ),
    "lspet": Layout("LSPET", Lspet, ("annotations.json",)),
    "camvid": Layout("CamVid", CamVid, ("labels",)),
}


def open_layout(name: str, root: Path, split: str) -> SampleSource:
    """Open a split of a data set whose layout is known.

    Raises:
        DataError: a folder or file is missing or malformed.
    """
    return LAYOUTS[name].open(root, split)


def recognise(root: Path) -> str:
    """The name of the layout that a folder has.

    Raises:
        DataError: it has none of those known.
    """
    require_folder(root, f"one of the data sets {', '.join(LAYOUTS)}")
    for name, layout in LAYOUTS.items():
        if any((root / mark).exists() for mark in layout.marks):
            return name
    marks = "; ".join(f"{name}: {' or '.join(x.marks)}" for name, x in LAYOUTS.items())
    raise DataError(root, "holds no data set that is known;", f"expected {marks}.")
