"""Labeling configurations read, and maps and keypoints written, in Label Studio's own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.objects import PredictionValue

from anytime_client import ModelInfo, Task, Update
from integrations.models import choose_model
from integrations.regions import polygons, regions

TASKS: Final = {
    "BrushLabels": Task.SEGMENTATION,
    "PolygonLabels": Task.SEGMENTATION,
    "KeyPointLabels": Task.POSE,
}
_POINT_WIDTH: Final = 0.5
"""Of a keypoint, in per cent of the image's width; Label Studio draws none without it."""


class UnusableError(ValueError):
    """A labeling configuration or a task that nothing can be predicted for."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control tag of a labeling configuration, and what is predicted for it.

    Attributes:
        tag: of one of the kinds in `TASKS`.
        model: that predicts.
        indices: for each label of the tag the classes or joints of the model that it stands for.
    """

    tag: ControlTag
    model: ModelInfo
    indices: dict[str, list[int]]

    @property
    def image(self) -> str:
        """Name of the field of a task's data that holds the image's URL."""
        return str(self.tag.objects[0].value_name)


def read_config(
    text: str, models: Sequence[ModelInfo], chosen: dict[Task, str | None]
) -> list[Control]:
    """The control tags of a labeling configuration that a model can fill.

    A label stands for the classes or joints in its attribute `predicted_values` (names with commas
    between them), or else for the one of its own name.

    Args:
        text: XML.
        models: of the server.
        chosen: names of the models to use; None for the server's first of the task.

    Raises:
        UnusableError: there are no such tags or labels, or no model for them.
    """
    try:
        tags = list(LabelInterface(text).controls)
    except Exception as error:  # the SDK raises whatever its parsers do
        raise UnusableError(f"label config: not one that can be read ({error})") from error
    controls = []
    for tag in tags:
        if (task := TASKS.get(tag.tag)) is not None:
            try:
                model = choose_model(models, task, chosen[task])
            except ValueError as error:
                raise UnusableError(str(error)) from error
            controls.append(Control(tag, model, _match_labels(tag, model)))
    if not controls:
        found = ", ".join(tag.tag for tag in tags) or "no control tags"
        raise UnusableError(f"label config: found {found}, expected {' or '.join(TASKS)}")
    return controls


def _match_labels(tag: ControlTag, model: ModelInfo) -> dict[str, list[int]]:
    index_of = {name.casefold(): index for index, name in enumerate(model.keypoints)}
    index_of |= {info.name.casefold(): info.id for info in model.classes}
    matched = {}
    for label, attributes in tag.labels_attrs.items():
        names = attributes.attr.get("predicted_values", label).casefold().split(",")
        if indices := [index_of[name.strip()] for name in names if name.strip() in index_of]:
            matched[label] = indices
    if not matched:
        raise UnusableError(
            f"{tag.tag} {tag.name!r}: found the labels {', '.join(tag.labels)}, expected some of "
            f"{', '.join(index_of)}; rename them, or name these in their predicted_values"
        )
    return matched


def draw(control: Control, update: Update, min_score: float) -> list[dict[str, Any]]:
    """A control's regions in Label Studio's own form: brush RLE, polygons or keypoints.

    Args:
        control: of the model that made the update.
        update: with a confidence map, or keypoints.
        min_score: score below which a keypoint is left out, 0 to 1.
    """
    tag = control.tag
    percent = 100 / update.width, 100 / update.height
    scores = []
    drawn = []
    if tag.tag == "KeyPointLabels":
        for label, (joint, *_) in control.indices.items():
            x, y, score = update.keypoints[joint].tolist()
            if score >= min_score:
                drawn.append(tag.label(label, x=x * percent[0], y=y * percent[1]))
                scores.append(score)
    elif tag.tag == "BrushLabels":
        for region in regions(update, control.indices):
            drawn.append(tag.label(region.label, rle=mask2rle(region.mask.astype("uint8") * 255)))
            scores.append(region.score)
    else:
        for polygon in polygons(regions(update, control.indices)):
            points = (polygon.points * percent).tolist()
            drawn.append(tag.label(polygon.label, points=points))
            scores.append(polygon.score)
    results: list[dict[str, Any]] = PredictionValue(result=drawn).model_dump()["result"]
    size = {"original_width": update.width, "original_height": update.height, "image_rotation": 0}
    for result, score in zip(results, scores, strict=True):
        result.update(size, score=score)
        if tag.tag == "KeyPointLabels":
            result["value"]["width"] = _POINT_WIDTH
    return results
