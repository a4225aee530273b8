"""MPII Human Pose as published, or with the annotation files that came with HRNet.

    images/*.jpg
    annot/train.json, annot/valid.json    HRNet's split; annot/gt_valid.mat adds the heads' boxes
    mpii_human_pose_v1_u12_1.mat          the published annotation, for the split `train` only

A sample is one person: a square around them, 250 px for each unit of the annotated scale (200 px
of body height and a quarter of margin), brought to 256x256 px, with everything outside the image
grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from anytime_model.data.files import read_image, read_json, require_folder, require_split
from anytime_model.data.sample import OUTSIDE, Sample, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

JOINTS = (
    Label("right ankle", "#ff5500"),
    Label("right knee", "#ff8200"),
    Label("right hip", "#ffaa00"),
    Label("left hip", "#00aaff"),
    Label("left knee", "#0082ff"),
    Label("left ankle", "#0055ff"),
    Label("pelvis", "#ffffff"),
    Label("thorax", "#dddddd"),
    Label("upper neck", "#ffff00"),
    Label("head top", "#c8ff78"),
    Label("right wrist", "#ff0055"),
    Label("right elbow", "#ff008c"),
    Label("right shoulder", "#ff00c8"),
    Label("left shoulder", "#00ffc8"),
    Label("left elbow", "#00ff8c"),
    Label("left wrist", "#00ff55"),
)

SKELETON = Skeleton(
    edges=(
        (0, 1),
        (1, 2),
        (2, 6),
        (6, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 9),
        (10, 11),
        (11, 12),
        (12, 7),
        (7, 13),
        (13, 14),
        (14, 15),
    ),
    flip=(5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10),
    torso=(13, 2),
)

SPLITS = ("train", "val")
SIZE = 256
BOX_PX = 250.0
HEAD_SHARE = 0.6
"""PCKh's unit is this share of the head box's diagonal, as in MPII's own evaluation."""

_FILES = {"train": "train.json", "val": "valid.json"}
_PUBLISHED = (
    "mpii_human_pose_v1_u12_1.mat",
    "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat",
)
_EXPECTED = (
    "MPII with images/*.jpg and either annot/train.json and annot/valid.json or "
    "mpii_human_pose_v1_u12_1.mat"
)


@dataclass(frozen=True, slots=True)
class _Person:
    """One annotated person, in 0-based px of the image."""

    image: str
    centre: tuple[float, float]
    scale: float
    joints: npt.NDArray[np.float32]
    head_px: float | None


class Mpii:
    """One split of MPII, person by person.

    Args:
        root: the folder that holds `images`.
        split: train or val; the published .mat has no val.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "pose"
    outputs = JOINTS
    skeleton: Skeleton | None = SKELETON

    def __init__(self, root: Path, split: str) -> None:
        require_split(split, SPLITS, root)
        self._images = require_folder(root / "images", _EXPECTED)
        annotation = root / "annot" / _FILES[split]
        published = next((root / name for name in _PUBLISHED if (root / name).exists()), None)
        if annotation.exists() or published is None:
            heads = root / "annot" / "gt_valid.mat"
            self._people = _from_json(annotation, heads if split == "val" else None)
        elif split == "train":
            self._people = list(_from_published(published))
        else:
            raise DataError(annotation, "no such file;", f"expected {_EXPECTED}.")

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, index: int) -> Sample:
        person = self._people[index]
        image = read_image(self._images / person.image)
        factor = SIZE / (BOX_PX * person.scale)
        offset = [(SIZE - 1) / 2 - c * factor for c in person.centre]
        matrix = np.array([[factor, 0, offset[0]], [0, factor, offset[1]]])
        crop = cv2.warpAffine(
            image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderValue=OUTSIDE
        )
        joints = person.joints.copy()
        joints[:, :2] = joints[:, :2] * factor + offset
        joints[joints[:, 2] == 0] = 0
        head_px = None if person.head_px is None else person.head_px * factor
        return Sample(
            f"{Path(person.image).stem}:{index}",
            crop.astype(np.uint8),
            joints=joints,
            head_px=head_px,
        )


def _from_json(path: Path, heads_path: Path | None) -> list[_Person]:
    """HRNet's files: a list of people; coordinates count from 1."""
    records = read_json(path, _EXPECTED)
    heads: list[float] | None = None
    if heads_path is not None and heads_path.exists():
        boxes = np.asarray(_load_mat(heads_path)["headboxes_src"], dtype=np.float64).reshape(
            2, 2, -1
        )
        heads = list(HEAD_SHARE * np.linalg.norm(boxes[1] - boxes[0], axis=0))
    people = []
    for i, record in enumerate(records):
        try:
            centre, scale = record["center"], float(record["scale"])
            xy = np.asarray(record["joints"], dtype=np.float32).reshape(len(JOINTS), 2) - 1
            seen = np.asarray(record["joints_vis"], dtype=np.float32).reshape(len(JOINTS), 1)
            people.append(
                _Person(
                    image=str(record["image"]),
                    # The annotated centre sits high; HRNet lowers it by 15 px a unit of scale.
                    centre=(float(centre[0]) - 1, float(centre[1]) + 15 * scale - 1),
                    scale=scale,
                    joints=np.hstack([xy, seen]),
                    head_px=heads[i] if heads else None,
                )
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                path,
                f"record {i} is malformed ({error!r});",
                "expected image, center, scale, 16 joints and joints_vis.",
            ) from error
    return people


def _from_published(path: Path) -> Iterable[_Person]:
    """The published structure: RELEASE.annolist(i).annorect(j); coordinates count from 1."""
    try:
        release = _load_mat(path)["RELEASE"]
        images = zip(_list(release.annolist), _list(release.img_train), strict=True)
        for image, trained in images:
            if not trained:
                continue
            for person in _list(image.annorect):
                if getattr(person, "annopoints", None) is None or not hasattr(person, "objpos"):
                    continue
                if not hasattr(person.annopoints, "point"):
                    continue
                yield _published_person(str(image.image.name), person)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            path, f"is not MPII's structure ({error!r});", f"expected {_EXPECTED}."
        ) from error


def _published_person(image: str, person: Any) -> _Person:
    joints = np.zeros((len(JOINTS), 3), dtype=np.float32)
    for point in _list(person.annopoints.point):
        joints[int(point.id)] = (point.x - 1, point.y - 1, 1)
    scale = float(person.scale)
    head = np.hypot(person.x2 - person.x1, person.y2 - person.y1)
    return _Person(
        image=image,
        centre=(float(person.objpos.x) - 1, float(person.objpos.y) + 15 * scale - 1),
        scale=scale,
        joints=joints,
        head_px=float(HEAD_SHARE * head),
    )


def _load_mat(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True, struct_as_record=False)
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise DataError(
            path, f"is no MATLAB file of version 7 or older ({error});", f"expected {_EXPECTED}."
        ) from error
    return content


def _list(value: Any) -> list[Any]:
    """What MATLAB stores as one thing or an array of them."""
    return list(np.atleast_1d(np.asarray(value, dtype=object)))
