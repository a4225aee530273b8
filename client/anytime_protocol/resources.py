"""What a server tells about a model, so that a client can paint its maps and name its joints.

Decides the description's fields. Does not know the network: it is told its exits, their measured
quality and cost, and repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from anytime_protocol.enums import Task
from anytime_protocol.json_reader import NAME_FORM, JsonObject, JsonReader, is_whole

MAX_EXITS: Final = 64
"""Exits that a network may have on the wire."""


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class of a map.

    Attributes:
        id: its value in the map, 0 to 255.
        name: for people.
        color: red, green, blue, 0 to 255 each: the palette of indexed PNGs.
    """

    id: int
    name: str
    color: tuple[int, int, int]

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the object."""
        color = fields.items("color", 3)
        bytes_ = [n for n in color if is_whole(n)]
        if len(bytes_) != 3 or not all(0 <= n <= 255 for n in bytes_):
            raise fields.fail("color", color, "three whole numbers from 0 to 255")
        red, green, blue = bytes_
        return cls(
            id=fields.integer("id", 0, 255),
            name=fields.text("name", 128),
            color=(red, green, blue),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        return {"id": self.id, "name": self.name, "color": list(self.color)}


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """One exit of a model.

    Attributes:
        gmacs: cost up to and including it, unmasked, at the size the model was measured with, in
            1e9 multiply-adds.
        quality: measured on held-out data, 0 to 1: mean IoU, or PCKh@0.5 for pose; None where it
            was not measured.
    """

    gmacs: float
    quality: float | None = None

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the object."""
        return cls(
            gmacs=fields.number("gmacs"),
            quality=fields.number("quality", 0, 1) if fields.has("quality") else None,
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {"gmacs": round(self.gmacs, 6)}
        if self.quality is not None:
            wire["quality"] = round(self.quality, 6)
        return wire


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that a server serves.

    Attributes:
        name: to be used in `infer` and in URLs.
        task: what it predicts.
        exits: in order, the first is exit 1.
        classes: of a segmentation model's map; empty for pose.
        keypoints: names of a pose model's joints, in order; empty for segmentation.
        skeleton: pairs of indices into `keypoints` to be joined by a line.
    """

    name: str
    task: Task
    exits: tuple[ExitInfo, ...]
    classes: tuple[ClassInfo, ...] = ()
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, fields: JsonReader) -> Self:
        """Reads the object."""
        exits = tuple(ExitInfo.read(item) for item in fields.objects("exits", MAX_EXITS))
        if not exits:
            raise fields.fail("exits", [], "at least one exit")
        keypoints = _read_names(fields) if fields.has("keypoints") else ()
        return cls(
            name=fields.formed("name", NAME_FORM),
            task=fields.word("task", Task),
            exits=exits,
            classes=tuple(ClassInfo.read(item) for item in fields.objects("classes", 256))
            if fields.has("classes")
            else (),
            keypoints=keypoints,
            skeleton=_read_skeleton(fields, len(keypoints)) if fields.has("skeleton") else (),
        )

    def to_json(self) -> JsonObject:
        """The wire form."""
        wire: JsonObject = {
            "name": self.name,
            "task": self.task,
            "exits": [exit_.to_json() for exit_ in self.exits],
        }
        if self.classes:
            wire["classes"] = [class_.to_json() for class_ in self.classes]
        if self.keypoints:
            wire["keypoints"] = list(self.keypoints)
        if self.skeleton:
            wire["skeleton"] = [list(pair) for pair in self.skeleton]
        return wire


def _read_names(fields: JsonReader) -> tuple[str, ...]:
    names = fields.items("keypoints", 256)
    if not all(isinstance(name, str) and len(name) <= 128 for name in names):
        raise fields.fail("keypoints", names, "names of at most 128 characters")
    return tuple(names)


def _read_skeleton(fields: JsonReader, joints: int) -> tuple[tuple[int, int], ...]:
    pairs: list[tuple[int, int]] = []
    for item in fields.items("skeleton", 1024):
        match item:
            case [a, b] if all(is_whole(joint) and 0 <= joint < joints for joint in item):
                pairs.append((a, b))
            case _:
                raise fields.fail("skeleton", item, f"pairs of joints below {joints}")
    return tuple(pairs)
