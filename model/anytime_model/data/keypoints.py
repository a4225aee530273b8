"""Labels of a pose data set merged with key points that another network has found on its images.

Crowd-sourced labels miss joints and take the viewer's left for the person's own; a network that
was trained on other data is a second opinion. `merged` says how two opinions become one.

A file of key points is an .npz of three arrays, one row an image:

    name                (N,)        str: the samples' names
    keypoints           (N, 17, 3)  float: x, y in px (pixel centres at integers), score 0 to 1
    keypoints_mirrored  (N, 17, 3)  the same, found in the mirrored image and mirrored back

Joints are in COCO's order.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from anytime_model.data.sample import Sample, SampleSource, Skeleton
from anytime_model.errors import ConfigError, DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

Floats = npt.NDArray[np.float32]

COCO: Final = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
"""The joints of a file, in their order."""

NEAR: Final = 0.5
"""Two places are one if they are no further apart than this, in lengths of the head (PCKh@0.5)."""

SEEN: Final = 0.2
"""Key points of a lower score say nothing about which side is left."""

SURE: Final = 0.4
"""Key points of this score or more, found twice, are taken instead of a label that differs."""

FEWEST_TURNED: Final = 3
"""So many more joints must fit with the sides changed before a whole person is turned round."""


def combined(plain: Floats, mirrored: Floats, head_px: float) -> Floats:
    """Key points found twice as one: the mean where both agree, else those of the higher score.

    Args:
        plain: (J, 3) x, y in px, and the score.
        mirrored: (J, 3), found in the mirrored image and mirrored back.
        head_px: length of the head.

    Returns:
        (J, 3). The score is the higher one where both agree, and 0 where they do not.
    """
    agree = _near(plain, mirrored, head_px)
    higher = np.where((plain[:, 2] >= mirrored[:, 2])[:, None], plain, mirrored)
    points = np.where(agree[:, None], (plain + mirrored) / 2, higher)
    points[:, 2] = np.where(agree, higher[:, 2], 0.0)
    return points


def merged(joints: Floats, found: Floats, head_px: float, flip: Sequence[int]) -> Floats:
    """Labelled joints and key points found by a network as one set of joints.

    First sides: a person whose joints fit better with left and right changed is turned round, then
    single pairs likewise. Then, joint by joint: where both are near each other, their mean; where
    they differ or the joint has no label, the key point if it is sure; otherwise the label.

    Args:
        joints: (J, 3) x, y in px, and 1 or 0 for visible or unknown.
        found: (J, 3) x, y in px, and the score, 0 to 1; NaN for joints that the network does not
            know, whose labels stay.
        head_px: length of the head.
        flip: for each joint, that of the other side, or itself.

    Returns:
        (J, 3) as `joints`.
    """
    other = np.asarray(flip)
    seen = found[:, 2] >= SEEN

    def fits(labels: Floats) -> npt.NDArray[np.int64]:
        near = _near(labels, found, head_px) & seen & (labels[:, 2] > 0)
        return near.astype(np.int64)

    if fits(joints[other]).sum() - fits(joints).sum() >= FEWEST_TURNED:
        joints = joints[other]
    gain = fits(joints[other]) - fits(joints)
    joints = np.where((gain + gain[other] > 0)[:, None], joints[other], joints)

    visible = joints[:, 2] > 0
    near = visible & _near(joints, found, head_px)
    taken = ~near & (found[:, 2] >= SURE)
    result = joints.copy()
    result[near, :2] = (joints[near, :2] + found[near, :2]) / 2
    result[taken, :2] = found[taken, :2]
    result[taken, 2] = 1.0
    return result


def _near(one: Floats, other: Floats, head_px: float) -> npt.NDArray[np.bool_]:
    """Which places (J, 2 or more) are within `NEAR` heads; none that is NaN."""
    distance = np.linalg.norm(one[:, :2] - other[:, :2], axis=1)
    near: npt.NDArray[np.bool_] = distance <= NEAR * head_px
    return near


@dataclass(frozen=True, slots=True)
class FoundKeypoints:
    """What a file of key points holds.

    Attributes:
        path: of the file.
        rows: the row of each sample's name.
        plain: (N, 17, 3) float32.
        mirrored: (N, 17, 3) float32.
    """

    path: Path
    rows: dict[str, int]
    plain: Floats
    mirrored: Floats

    @classmethod
    def read(cls, path: Path) -> FoundKeypoints:
        """Read a file.

        Raises:
            DataError: it is not readable, or not such a file.
        """
        try:
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("name", "keypoints", "keypoints_mirrored")}
        except FileNotFoundError as error:
            raise DataError(path, "no such file;", "expected an .npz of key points.") from error
        except KeyError as error:
            raise DataError(
                path,
                f"lacks an array ({error.args[0]});",
                "expected name, keypoints and keypoints_mirrored. Make the file again.",
            ) from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                path, f"is no readable .npz ({error});", "make the file again."
            ) from error
        names = arrays.pop("name")
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(
                path,
                f"has names of shape {names.shape} and type {names.dtype};",
                "expected one string a row. Make the file again.",
            )
        for name, array in arrays.items():
            if array.shape != (len(names), len(COCO), 3) or array.dtype.kind != "f":
                raise DataError(
                    path,
                    f"has {name} of shape {array.shape} and type {array.dtype};",
                    f"expected floats of shape {(len(names), len(COCO), 3)}. Make the file again.",
                )
            scores = array[..., 2]
            if not (np.isfinite(array).all() and (scores >= 0).all() and (scores <= 1).all()):
                raise DataError(
                    path,
                    f"has {name} that are not finite or scores outside 0 to 1;",
                    "expected x, y in px and a score. Make the file again.",
                )
        rows = {str(name): row for row, name in enumerate(names)}
        if len(rows) != len(names):
            raise DataError(
                path, "has a name twice;", "expected a row an image. Make the file again."
            )
        plain, mirrored = (
            arrays[name].astype(np.float32) for name in ("keypoints", "keypoints_mirrored")
        )
        return cls(path, rows, plain, mirrored)


class MergedSource:
    """A split whose joints are merged with key points, by name; joints match COCO's by name.

    Args:
        source: the split.
        found: key points of each of its images.

    Raises:
        ConfigError: the split has no joints, or none of COCO's.
    """

    def __init__(self, source: SampleSource, found: FoundKeypoints) -> None:
        skeleton = source.skeleton
        names = [label.name for label in source.outputs]
        known = [joint for joint, name in enumerate(names) if name in COCO]
        if skeleton is None or not known:
            raise ConfigError(
                "key points can be merged with labels of people only, and this data set has none "
                "of COCO's joints; leave out --keypoints."
            )
        self.task: TaskName = source.task
        self.outputs: tuple[Label, ...] = source.outputs
        self.skeleton: Skeleton = skeleton
        self._source = source
        self._found = found
        self._known = known
        self._columns = [COCO.index(names[joint]) for joint in known]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        if sample.joints is None or sample.head_px is None:
            return sample
        row = self._found.rows.get(sample.name)
        if row is None:
            raise DataError(
                self._found.path,
                f"has no key points of {sample.name};",
                "expected a row for every image. Make the file for this data set.",
            )
        found = np.full((len(self.outputs), 3), np.nan, dtype=np.float32)
        found[self._known] = combined(
            self._found.plain[row, self._columns],
            self._found.mirrored[row, self._columns],
            sample.head_px,
        )
        height, width = sample.image.shape[:2]
        outside = (found[:, :2] < 0).any(1) | (found[:, :2] > (width - 1, height - 1)).any(1)
        found[outside, 2] = 0.0
        joints = merged(sample.joints, found, sample.head_px, self.skeleton.flip)
        return replace(sample, joints=joints)
