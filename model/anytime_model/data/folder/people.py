"""One's own images of people (or of anything that has joints), annotated in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from anytime_model.data.files import opened_image, read_json
from anytime_model.data.folder.description import Description
from anytime_model.data.folder.faults import raise_faults
from anytime_model.data.folder.images import usual_side
from anytime_model.data.folder.splits import select
from anytime_model.data.lspet import HEAD_OVER_EXTENT
from anytime_model.data.sample import OUTSIDE, Sample, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label
from anytime_model.tasks import TaskName

FILE = "annotations.json"
MARGIN = 0.15
"""What a crop shows around a person's box on each side, as a share of the box's longer side."""
LARGEST_USUAL_SIDE = 192
"""Px to which larger crops are brought where `classes.toml` names no side."""

_EXPECTED = "COCO keypoints: lists `images`, `annotations` and `categories` with `keypoints`"

_Order = Mapping[int | str, tuple[int, list[int]]]


@dataclass(frozen=True, slots=True)
class _Person:
    """One annotated person, in px of the image.

    Attributes:
        name: unique in the data set.
        image: name of their image.
        corner: x and y of the crop's first pixel; may lie outside the image.
        crop_px: length of the crop's sides.
        joints: (J, 3) float32, as `Sample.joints`.
        head_px: see `Sample`.
    """

    name: str
    image: str
    corner: tuple[int, int]
    crop_px: int
    joints: npt.NDArray[np.float32]
    head_px: float


class People:
    """One split of a folder of images with COCO keypoints: a square crop around each person.

    People without a visible joint, and crowds, are left out. Where `classes.toml` names no head, or
    it is not seen, `HEAD_OVER_EXTENT` times the longer side of a person's box stands in for it.

    Args:
        root: the folder.
        split: one of `splits.SPLITS`; lists name images.
        description: of the joints.

    Raises:
        DataError: a folder or file is missing or malformed.
    """

    task: TaskName = "pose"

    def __init__(self, root: Path, split: str, description: Description) -> None:
        if description.skeleton is None:
            raise DataError(description.path, "has no joints;", "expected a list `joints`.")
        annotations = _Annotations(root / FILE, description)
        images = annotations.images
        self._files = {name: root / "images" / file for name, file in images.items()}
        self.outputs: tuple[Label, ...] = description.outputs
        self.skeleton: Skeleton = description.skeleton
        self._people = _people_of(annotations.people, select(root, images, split))
        if not any(p.joints[list(self.skeleton.torso), 2].all() for p in self._people):
            names = " and ".join(self.outputs[joint].name for joint in self.skeleton.torso)
            raise DataError(
                root / FILE,
                f"has nobody in the split {split} whose {names} are both visible;",
                "expected some: they are the `torso` of classes.toml, the unit of errors.",
            )
        trained_on = _people_of(annotations.people, select(root, images, "train"))
        self.side = description.side or usual_side(
            [p.crop_px for p in trained_on] or [LARGEST_USUAL_SIDE], LARGEST_USUAL_SIDE
        )

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, index: int) -> Sample:
        person, side = self._people[index], self.side
        factor = side / person.crop_px
        joints = person.joints.copy()
        joints[:, :2] = (joints[:, :2] - person.corner + 0.5) * factor - 0.5
        joints[joints[:, 2] == 0] = 0
        image = _crop(self._files[person.image], person, side)
        return Sample(person.name, image, joints=joints, head_px=person.head_px * factor)


def _people_of(people: list[_Person], names: list[str]) -> list[_Person]:
    chosen = set(names)
    return [person for person in people if person.image in chosen]


def _crop(path: Path, person: _Person, side: int) -> npt.NDArray[np.uint8]:
    """The square around a person, (side, side, 3) uint8 RGB."""
    x, y = person.corner
    with opened_image(path, f"the image that {FILE} names") as image:
        ImageOps.exif_transpose(image, in_place=True)
        end_x, end_y = x + person.crop_px, y + person.crop_px
        inside = (max(x, 0), max(y, 0), min(end_x, image.width), min(end_y, image.height))
        if inside[0] >= inside[2] or inside[1] >= inside[3] or person.crop_px > 4 * max(image.size):
            raise DataError(
                path,
                f"is {image.width}x{image.height} px, and {person.name} is at {x},{y} to "
                f"{end_x},{end_y};",
                f"expected boxes inside the image. Correct {FILE}.",
            )
        square = Image.new("RGB", (person.crop_px, person.crop_px), OUTSIDE)
        square.paste(image.convert("RGB").crop(inside), (inside[0] - x, inside[1] - y))
    resized = square.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.array(resized)


class _Annotations:
    """An `annotations.json`, read and checked.

    Attributes:
        images: file of each image below `images`, by name: the file without its ending.
        people: those with a visible joint.
    """

    def __init__(self, path: Path, description: Description) -> None:
        content = read_json(path, _EXPECTED)
        lists = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) and all(isinstance(x, dict) for x in content[key])
            for key in lists
        ):
            raise DataError(path, "is not in COCO's format;", f"expected {_EXPECTED}.")
        self._path = path
        self._description = description
        faults: list[DataError] = []
        self.images: dict[str, str] = {}
        self._names: dict[int | str, str] = {}
        for image in content["images"]:
            file = image.get("file_name")
            if not isinstance(file, str) or not file or not _is_id(image.get("id")):
                found = f"has the image {_short(image)};"
                faults.append(DataError(path, found, "expected `id` and `file_name`."))
                continue
            name = str(PurePosixPath(file).with_suffix(""))
            if self.images.setdefault(name, file) != file:
                found = f"has the images {self.images[name]} and {file};"
                cure = "expected names that differ in more than their ending."
                faults.append(DataError(path, found, cure))
            self._names[image["id"]] = name
        self._order = self._joint_order(content["categories"])
        self.people: list[_Person] = []
        for annotation in content["annotations"]:
            try:
                person = self._person(annotation)
            except DataError as error:
                faults.append(error)
                continue
            if person is not None:
                self.people.append(person)
        raise_faults(path.parent, faults)

    def _joint_order(self, categories: list[dict[str, Any]]) -> _Order:
        """For each category with keypoints: how many, and where each of our joints is in them."""
        order: dict[int | str, tuple[int, list[int]]] = {}
        for category in categories:
            names = category.get("keypoints")
            if not isinstance(names, list) or not _is_id(category.get("id")):
                continue
            unknown = [x.name for x in self._description.outputs if x.name not in names]
            if unknown:
                raise DataError(
                    self._description.path,
                    f"has the unknown joint {unknown[0]!r};",
                    f"expected keypoints of {self._path.name}: {', '.join(map(str, names))}.",
                )
            places = [names.index(x.name) for x in self._description.outputs]
            order[category["id"]] = len(names), places
        if not order:
            raise DataError(
                self._path, "has no category with `keypoints`;", f"expected {_EXPECTED}."
            )
        return order

    def _person(self, annotation: dict[str, Any]) -> _Person | None:
        """The person of an annotation; None where there is none to learn from.

        Raises:
            DataError: it is malformed.
        """
        category, of_image = annotation.get("category_id"), annotation.get("image_id")
        if not _is_id(category) or category not in self._order or annotation.get("iscrowd"):
            return None
        count, places = self._order[category]
        name = f"annotation {annotation.get('id')}"
        image = self._names.get(of_image) if _is_id(of_image) else None
        if image is None:
            raise DataError(
                self._path,
                f"has {name} of the unknown image {of_image!r};",
                "expected the id of one of its images.",
            )
        given = _numbers(annotation.get("keypoints"))
        if given is None or len(given) != 3 * count:
            raise DataError(
                self._path,
                f"has {name} with the keypoints {_short(annotation.get('keypoints'))};",
                f"expected x, y and visibility of {count} joints.",
            )
        joints = given.reshape(-1, 3)[places]
        joints[:, 2] = joints[:, 2] > 0
        visible = joints[joints[:, 2] > 0, :2]
        if not len(visible):
            return None
        box = _numbers(annotation.get("bbox"))
        if "bbox" not in annotation:
            box = np.concatenate([visible.min(0), np.ptp(visible, axis=0) + 1])
        if box is None or len(box) != 4 or min(box[2:]) <= 0:
            raise DataError(
                self._path,
                f"has {name} with the bbox {_short(annotation.get('bbox'))};",
                "expected x, y, width and height, the last two above 0.",
            )
        return self._cropped(f"{image}:{annotation.get('id')}", image, joints, box)

    def _cropped(
        self,
        name: str,
        image: str,
        joints: npt.NDArray[np.float64],
        box: npt.NDArray[np.float64],
    ) -> _Person:
        longer = max(box[2:])
        crop_px = max(1, round((1 + 2 * MARGIN) * longer))
        x, y = (round(start + length / 2 - crop_px / 2) for start, length in box.reshape(2, 2).T)
        ends = self._description.head
        head_px = HEAD_OVER_EXTENT * longer
        if ends is not None and joints[list(ends), 2].all():
            head_px = max(1.0, np.linalg.norm(joints[ends[0], :2] - joints[ends[1], :2]))
        return _Person(name, image, (x, y), crop_px, joints.astype(np.float32), float(head_px))


def _is_id(found: Any) -> TypeGuard[int | str]:
    return isinstance(found, int | str)


def _numbers(found: Any) -> npt.NDArray[np.float64] | None:
    """A list of finite numbers as an array, or None."""
    if not isinstance(found, list) or not all(type(x) in {int, float} for x in found):
        return None
    numbers = np.array(found, dtype=np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:60]}..."
