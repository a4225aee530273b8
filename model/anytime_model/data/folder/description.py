"""`classes.toml`: what the outputs of one's own data set are.

Classes of pixels:

    classes = [
        {name = "background", color = "#000000"},   # label 0
        {name = "square", color = "#e6194b"},       # label 1
    ]
    ignore = 255        # optional: label, or colour such as "#ffffff", of pixels without a class
    side = 512          # optional: px to which the longer side of every image is brought

Joints of people, or of anything else that has joints:

    joints = [
        {name = "head_top", color = "#ffffff"}, {name = "neck", color = "#ffcc00"},
        {name = "left_hand", color = "#00aaff"}, {name = "right_hand", color = "#ff5500"},
    ]
    pairs = [["left_hand", "right_hand"]]       # optional: they change places in a mirrored image
    skeleton = [["left_hand", "right_hand"]]    # optional: joints that a drawing connects
    torso = ["left_hand", "right_hand"]         # far apart; their distance is the unit of PCK
    head = ["neck", "head_top"]                 # optional: their distance is the unit of PCKh
    side = 192                                  # optional: px of a person's square crop
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anytime_model.data.sample import IGNORE, Skeleton
from anytime_model.errors import DataError
from anytime_model.labels import Label

FILE = "classes.toml"
SIDE_STEP = 32
SIDES = range(64, 2049, SIDE_STEP)
"""What a side may be, px: the networks' images are padded to multiples of 32."""

_OF_CLASSES = ("classes", "ignore", "side")
_OF_JOINTS = ("joints", "pairs", "skeleton", "torso", "head", "side")
_COLOR = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Description:
    """The content of a `classes.toml`.

    Attributes:
        path: of the file.
        outputs: classes or joints, in the order of their ids.
        side: px to which the longer side of every image or crop is brought; None to take what
            most of them have.
        ignore: label (0 to 255) or colour ("#rrggbb") of pixels without a class, or None.
        skeleton: how the joints hang together; None for classes.
        head: the joints at both ends of the head, or None.
    """

    path: Path
    outputs: tuple[Label, ...]
    side: int | None
    ignore: int | str | None = None
    skeleton: Skeleton | None = None
    head: tuple[int, int] | None = None


def read_description(root: Path) -> Description:
    """Read the `classes.toml` of a folder.

    Raises:
        DataError: it is missing, is not TOML, or has a key or value that is unknown or does not
            fit.
    """
    path = root / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            path, "no such file;", "expected one that names the classes or the joints."
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(path, f"is not TOML ({error}).", "Mend it at that place.") from error
    if ("classes" in table) == ("joints" in table):
        found = "both `classes` and `joints`" if table.get("classes") else "neither"
        raise DataError(path, f"has {found};", "expected either `classes` or `joints`.")
    known = _OF_CLASSES if "classes" in table else _OF_JOINTS
    for key in table:
        if key not in known:
            raise DataError(path, f"has the unknown key {key!r};", f"expected {', '.join(known)}.")
    return _classes(path, table) if "classes" in table else _joints(path, table)


def _classes(path: Path, table: Mapping[str, Any]) -> Description:
    labels = _labels(path, table, "classes")
    if not 2 <= len(labels) <= IGNORE:
        raise DataError(path, f"has {len(labels)} classes;", f"expected 2 to {IGNORE}.")
    _refuse_repeated(path, "classes", "colour", [label.color.lower() for label in labels])
    ignore = table.get("ignore")
    is_label = type(ignore) is int and len(labels) <= ignore <= IGNORE
    is_color = _is_color(ignore) and str(ignore).lower() not in {x.color.lower() for x in labels}
    if not (ignore is None or is_label or is_color):
        raise DataError(
            path,
            f"ignore is {ignore!r};",
            f"expected a label from {len(labels)} to {IGNORE}, as 0 to {len(labels) - 1} are the "
            'classes, or a colour such as "#ffffff" that no class has.',
        )
    return Description(path, labels, _side(path, table), ignore)


def _joints(path: Path, table: Mapping[str, Any]) -> Description:
    labels = _labels(path, table, "joints")
    numbers = {label.name: number for number, label in enumerate(labels)}

    def pair(key: str, found: Any) -> tuple[int, int]:
        if not isinstance(found, list) or len(found) != 2 or found[0] == found[1]:
            raise DataError(path, f"{key} has {found!r};", "expected the names of two joints.")
        for name in found:
            if name not in numbers:
                raise DataError(
                    path,
                    f"{key} has the unknown joint {name!r};",
                    f"expected names from `joints`: {', '.join(numbers)}.",
                )
        return numbers[found[0]], numbers[found[1]]

    def pairs(key: str) -> tuple[tuple[int, int], ...]:
        found = table.get(key, [])
        if not isinstance(found, list):
            raise DataError(path, f"{key} is {found!r};", "expected a list of pairs of joints.")
        return tuple(pair(key, names) for names in found)

    flip = list(range(len(labels)))
    for one, other in pairs("pairs"):
        if flip[one] != one or flip[other] != other:
            names = [labels[one].name, labels[other].name]
            raise DataError(
                path, f"pairs has {names!r};", "expected each joint in one pair at most."
            )
        flip[one], flip[other] = other, one
    if "torso" not in table:
        raise DataError(
            path,
            "has no `torso`;",
            "expected two joints far apart, such as a shoulder and the opposite hip: their "
            "distance is the unit in which errors are measured.",
        )
    skeleton = Skeleton(pairs("skeleton"), tuple(flip), pair("torso", table["torso"]))
    head = pair("head", table["head"]) if "head" in table else None
    return Description(path, labels, _side(path, table), skeleton=skeleton, head=head)


def _labels(path: Path, table: Mapping[str, Any], key: str) -> tuple[Label, ...]:
    example = '{name = "sky", color = "#808080"}'
    found = table[key]
    if not isinstance(found, list) or not found:
        raise DataError(path, f"{key} is {found!r};", f"expected a list of {example}.")
    for item in found:
        if not isinstance(item, dict) or item.keys() != {"name", "color"}:
            raise DataError(path, f"{key} has {item!r};", f"expected {example}.")
        if not isinstance(item["name"], str) or not item["name"].strip():
            raise DataError(path, f"{key} has the name {item['name']!r};", "expected some text.")
        if not _is_color(item["color"]):
            raise DataError(
                path,
                f"{item['name']!r} has the color {item['color']!r};",
                'expected one such as "#8040ff".',
            )
    labels = tuple(Label(item["name"], item["color"]) for item in found)
    _refuse_repeated(path, key, "name", [label.name for label in labels])
    return labels


def _refuse_repeated(path: Path, key: str, what: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise DataError(
                path, f"{key} has the {what} {value!r} twice;", f"expected a {what} once."
            )


def _side(path: Path, table: Mapping[str, Any]) -> int | None:
    side = table.get("side")
    if side is not None and (type(side) is not int or side not in SIDES):
        raise DataError(
            path,
            f"side is {side!r};",
            f"expected a multiple of {SIDE_STEP} px from {SIDES[0]} to {SIDES[-1]}.",
        )
    return side


def _is_color(found: Any) -> bool:
    return isinstance(found, str) and _COLOR.fullmatch(found) is not None
