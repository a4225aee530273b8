"""Leeds Sports Pose Extended as single-person crops of 160x160 px with 14 joints.

    images/{train,val,test}/NAME.jpg    annotations.json    joints.json

Images whose annotation is flagged as suspicious are left out of every split, in training and in
scoring, as the set's own notes advise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anytime_model.data.files import read_image, read_json, require_folder, require_split
from anytime_model.data.sample import Sample, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

SPLITS = ("train", "val", "test", "trainval")
HEAD_OVER_EXTENT = 0.184
"""Median of head length over the longer side of the joints' box: stands in for an unseen head."""

_EXPECTED = "LSPET crops with images/{train,val,test}/*.jpg, annotations.json and joints.json"

JOINTS = (
    Label("right ankle", "#ff5500"),
    Label("right knee", "#ff8200"),
    Label("right hip", "#ffaa00"),
    Label("left hip", "#00aaff"),
    Label("left knee", "#0082ff"),
    Label("left ankle", "#0055ff"),
    Label("right wrist", "#ff0055"),
    Label("right elbow", "#ff008c"),
    Label("right shoulder", "#ff00c8"),
    Label("left shoulder", "#00ffc8"),
    Label("left elbow", "#00ff8c"),
    Label("left wrist", "#00ff55"),
    Label("neck", "#ffff00"),
    Label("head top", "#c8ff78"),
)

SKELETON = Skeleton(
    edges=(
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 12),
        (12, 9),
        (9, 10),
        (10, 11),
        (12, 13),
        (2, 8),
        (3, 9),
    ),
    flip=(5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13),
    torso=(9, 2),
)


class Lspet:
    """One split of the LSPET crops.

    Args:
        root: the folder that holds `images` and the two JSON files.
        split: one of `SPLITS`.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "pose"
    outputs = JOINTS
    skeleton = SKELETON

    def __init__(self, root: Path, split: str) -> None:
        require_split(split, SPLITS, root)
        require_folder(root, _EXPECTED)
        self._root = root
        parts = {"train", "val"} if split == "trainval" else {split}
        path = root / "annotations.json"
        content = read_json(path, _EXPECTED)
        try:
            self._records = [
                record
                for record in content["images"]
                if record["split"] in parts and not record.get("flags")
            ]
        except (KeyError, TypeError) as error:
            raise DataError(
                path, f"lacks {error};", "expected a list `images` of records with `split`."
            ) from error
        if not self._records:
            raise DataError(path, f"has no image of the split {split};", f"expected {_EXPECTED}.")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record: dict[str, Any] = self._records[index]
        try:
            joints = np.asarray(record["joints"], dtype=np.float32)
            name, head = str(record["name"]), record["head"]
            head_px = float(head if head is not None else HEAD_OVER_EXTENT * record["extent"])
            path = self._root / "images" / record["split"] / f"{name}.jpg"
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                self._root / "annotations.json",
                f"record {index} of this split is malformed ({error!r});",
                "expected name, split, joints, head and extent.",
            ) from error
        if joints.shape != (len(JOINTS), 3):
            raise DataError(
                self._root / "annotations.json",
                f"{name} has joints of shape {joints.shape};",
                f"expected {len(JOINTS)} joints of x, y, visible.",
            )
        return Sample(name, read_image(path), joints=joints, head_px=head_px)
