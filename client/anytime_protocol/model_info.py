"""What a server says about a model: its exits, its classes or joints, its colours."""

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, model_validator

from anytime_protocol.enums import Task
from anytime_protocol.errors import FieldError, describe
from anytime_protocol.validation import Absent, Amount, JsonValue, Name, Share, omit, text, whole

# Exits that a network may have on the wire.
MAX_EXITS: Final = 64

_Byte = Annotated[int, whole(0, 255)]
_Index = Annotated[int, whole()]
_Label = Annotated[str, text(128)]
_Description = Annotated[str, text(512)]
_Side = Annotated[int, whole(1)]


@dataclass(frozen=True, slots=True)
class ClassInfo(JsonValue):
    """One class of a map.

    Attributes:
        id: its value in the map, 0 to 255.
        name: for people.
        color: red, green, blue, 0 to 255 each: the palette of indexed PNGs.
    """

    id: _Byte
    name: _Label
    color: tuple[_Byte, _Byte, _Byte]


@dataclass(frozen=True, slots=True)
class ExitInfo(JsonValue):
    """One exit of a model.

    Attributes:
        gmacs: cost up to and including it, unmasked, for an image of the model's `measured_size`,
            in 1e9 multiply-adds.
        quality: measured on held-out data, 0 to 1: mean IoU, or PCKh@0.5 for pose; None where it
            was not measured.
        side: px to which the longer side of every image is brought for it; None where the image is
            computed at the size at which it comes.
        expected_ms: time from the beginning of the computation to this exit, unmasked, measured
            when the server started, for an image of the model's `measured_size`; ms.
    """

    gmacs: Amount
    quality: Absent[Share] = None
    side: Absent[_Side] = None
    expected_ms: Absent[Amount] = None


@dataclass(frozen=True, slots=True)
class CertificateInfo(JsonValue):
    """A promise about a model's masks, for a budget's `max_risk`.

    Of the pixels of an answer that are settled, a share of at most `risk` has another class than
    the model without masks gives them at its last exit: on average over images like those that it
    was calibrated on.

    Attributes:
        risk: 0 to 1, above 0.
        confidence: that the promise is kept, 0 to 1.
        images: how many it was calibrated on; frames of one clip are not independent, so that of a
            video fewer count.
        measured: the share that differed on them, 0 to 1.
        largest_loss: share that one image counts at most.
        dataset: that they are of, for people.
    """

    risk: Share
    confidence: Share
    images: Annotated[int, whole(1)]
    measured: Share
    largest_loss: Annotated[Share, omit(1.0)] = 1.0
    dataset: Absent[_Label] = None


@dataclass(frozen=True, slots=True)
class ModelInfo(JsonValue):
    """One model that a server serves.

    Attributes:
        name: to be used in `infer` and in URLs.
        task: what it predicts.
        exits: in order, the first is exit 1.
        classes: of a segmentation model's map; empty for pose.
        keypoints: names of a pose model's joints, in order; empty for segmentation.
        skeleton: pairs of indices into `keypoints` to be joined by a line.
        keypoint_colors: red, green, blue of each joint, 0 to 255 each; empty where none are known.
        engine: what computes it, such as `native-avx512-bf16`; for people.
        precision: what its convolutions compute in: `f32`, `bf16` or `int8`.
        measured_size: (H, W) of the images that `gmacs` and `expected_ms` of its exits are about,
            px; None where the server does not say.
        description: what it was made for and trained on, for people; empty where nothing is known.
        certificates: promises about its masks, by rising risk.
    """

    name: Name
    task: Task
    exits: Annotated[tuple[ExitInfo, ...], Field(max_length=MAX_EXITS)]
    classes: Annotated[tuple[ClassInfo, ...], Field(max_length=256), omit(())] = ()
    keypoints: Annotated[tuple[_Label, ...], Field(max_length=256), omit(())] = ()
    skeleton: Annotated[tuple[tuple[_Index, _Index], ...], Field(max_length=1024), omit(())] = ()
    keypoint_colors: Annotated[
        tuple[tuple[_Byte, _Byte, _Byte], ...], Field(max_length=256), omit(())
    ] = ()
    engine: Absent[_Label] = None
    precision: Absent[_Label] = None
    measured_size: Absent[tuple[_Side, _Side]] = None
    description: Annotated[_Description, omit("")] = ""
    certificates: Annotated[tuple[CertificateInfo, ...], Field(max_length=64), omit(())] = ()

    def certified_risk(self, max_risk: float) -> float:
        """The largest risk of a certificate up to `max_risk`; 0, which is no masks, without one."""
        return max((c.risk for c in self.certificates if c.risk <= max_risk), default=0.0)

    @model_validator(mode="after")
    def _check(self) -> "ModelInfo":
        if not self.exits:
            raise FieldError("exits", describe(self.exits), "at least one exit")
        joints = len(self.keypoints)
        if self.keypoint_colors and len(self.keypoint_colors) != joints:
            found = f"{len(self.keypoint_colors)} colours"
            raise FieldError("keypoint_colors", found, f"one for each of {joints} keypoints")
        for index, pair in enumerate(self.skeleton):
            if max(pair) >= joints:
                raise FieldError(f"skeleton[{index}]", str(list(pair)), f"joints below {joints}")
        return self
